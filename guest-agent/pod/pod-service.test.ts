import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Status } from '@sealpod/protocol/ttrpc';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  allowAll,
  cannotRunContainers,
  containerRequest,
  type PodFixture,
  readAll,
  startPod,
} from './testing/pod-fixture.ts';

const reason = cannotRunContainers();

describe.skipIf(reason !== undefined)(
  `pod service with real containers${reason ? ` (skipped: ${reason})` : ''}`,
  () => {
    let pod: PodFixture;
    let count = 0;

    beforeAll(async () => {
      pod = await startPod(allowAll);
      await pod.agent.createSandbox({ sandboxId: 'sandbox', hostname: 'pod-one' });
    });
    afterAll(() => pod?.close());

    const stdout = (containerId: string, execId = '') =>
      readAll((len) => pod.agent.readStdout({ containerId, execId, len }));
    const stderr = (containerId: string, execId = '') =>
      readAll((len) => pod.agent.readStderr({ containerId, execId, len }));

    /** Creates and starts a container; returns its id. */
    async function run(args: string[], wish: Partial<Parameters<typeof containerRequest>[1]> = {}): Promise<string> {
      const id = `c${++count}`;
      await pod.agent.createContainer(containerRequest(pod.root, { id, args, ...wish }));
      await pod.agent.startContainer({ containerId: id });
      return id;
    }

    it('runs a container: output, errors and exit status', async () => {
      const id = await run(['sh', '-c', 'echo out; echo err >&2; exit 7']);
      expect(await Promise.all([stdout(id), stderr(id)])).toEqual(['out\n', 'err\n']);
      expect(await pod.agent.waitProcess({ containerId: id })).toMatchObject({ status: 7 });
      expect(await pod.agent.waitProcess({ containerId: id, execId: id })).toMatchObject({ status: 7 });
      await pod.agent.removeContainer({ containerId: id });
      expect(existsSync(join(pod.root, id))).toBe(false);
      await expect(pod.agent.waitProcess({ containerId: id })).rejects.toMatchObject({ status: Status.notFound });
    });

    it('gives containers real pipes: /dev/stdout can be opened', async () => {
      const id = await run(['sh', '-c', 'echo by name > /dev/stdout; readlink /proc/self/fd/1']);
      expect(await stdout(id)).toMatch(/^by name\n\/.*\/stdout/);
    });

    it('feeds standard input and ends it, by CloseStdin and by an empty write', async () => {
      for (const close of [
        (containerId: string) => pod.agent.closeStdin({ containerId }),
        (containerId: string) => pod.agent.writeStdin({ containerId, data: new Uint8Array() }),
      ]) {
        const id = await run(['cat']);
        const text = 'x'.repeat(200_000);
        const read = stdout(id);
        expect(await pod.agent.writeStdin({ containerId: id, data: Buffer.from(text) })).toMatchObject({
          len: text.length,
        });
        await close(id);
        expect(await read).toBe(text);
        expect(await pod.agent.waitProcess({ containerId: id })).toMatchObject({ status: 0 });
        await expect(pod.agent.writeStdin({ containerId: id, data: Buffer.from('late') })).rejects.toMatchObject({
          status: Status.failedPrecondition,
        });
      }
    });

    it('runs other processes beside it: exit status, streams, environment and input', async () => {
      const id = await run(['sleep', '60']);
      await pod.agent.execProcess({
        containerId: id,
        execId: 'e1',
        process: { Args: ['sh', '-c', 'echo $WORD; cat; exit 3'], Env: ['PATH=/bin', 'WORD=hello'], Cwd: '/tmp' },
      });
      const read = stdout(id, 'e1');
      await pod.agent.writeStdin({ containerId: id, execId: 'e1', data: Buffer.from('typed\n') });
      await pod.agent.closeStdin({ containerId: id, execId: 'e1' });
      expect(await read).toBe('hello\ntyped\n');
      expect(await stderr(id, 'e1')).toBe('');
      const waits = [1, 2].map(() => pod.agent.waitProcess({ containerId: id, execId: 'e1' }));
      expect((await Promise.all(waits)).map(({ status }) => status)).toEqual([3, 3]);
      await expect(pod.agent.signalProcess({ containerId: id, execId: 'e1', signal: 9 })).rejects.toMatchObject({
        status: Status.notFound,
      });
      await pod.agent.removeContainer({ containerId: id });
    });

    it('gives an exec a terminal, of the size asked for', async () => {
      const id = await run(['sleep', '60']);
      const process = {
        Terminal: true,
        ConsoleSize: { Height: 30, Width: 90 },
        Args: ['sh'],
        Env: ['PATH=/bin'],
        Cwd: '/',
      };
      await pod.agent.execProcess({ containerId: id, execId: 'tty', process });
      const type = (text: string) => pod.agent.writeStdin({ containerId: id, execId: 'tty', data: Buffer.from(text) });
      await type('stty size; echo re""ady\n');
      let seen = '';
      while (!seen.includes('ready\r\n')) {
        seen += Buffer.from(
          (await pod.agent.readStdout({ containerId: id, execId: 'tty', len: 4096 })).data,
        ).toString();
      }
      expect(seen).toContain('30 90');
      await pod.agent.ttyWinResize({ containerId: id, execId: 'tty', row: 41, column: 101 });
      // The terminal passes the size on by a signal, so ask until it has arrived.
      await type('while [ "$(stty size)" != "41 101" ]; do :; done; stty size; exit 5\n');
      expect(await stdout(id, 'tty')).toContain('\n41 101');
      expect(await stderr(id, 'tty')).toBe('');
      expect(await pod.agent.waitProcess({ containerId: id, execId: 'tty' })).toMatchObject({ status: 5 });
      await pod.agent.removeContainer({ containerId: id });
    });

    // The process stays for a moment: crun 1.8 drops what a terminal's process wrote if it ends before crun relays.
    it('gives a container a terminal', async () => {
      const id = await run(['sh', '-c', 'test -t 0 && test -t 1 && echo terminal; sleep 0.3; exit 4'], {
        terminal: true,
      });
      expect(await stdout(id)).toBe('terminal\r\n');
      expect(await pod.agent.waitProcess({ containerId: id })).toMatchObject({ status: 4 });
      await pod.agent.removeContainer({ containerId: id });
    });

    it('delivers signals: a handler sees SIGTERM, without one it kills, SIGKILL ends all', async () => {
      const handling = await run(['sh', '-c', "trap 'echo got; exit 9' TERM; echo set; while :; do sleep 0.05; done"]);
      const first = await pod.agent.readStdout({ containerId: handling, len: 4096 });
      expect(Buffer.from(first.data).toString()).toBe('set\n');
      await pod.agent.signalProcess({ containerId: handling, signal: 15 });
      expect(await pod.agent.waitProcess({ containerId: handling })).toMatchObject({ status: 9 });
      const deaf = await run(['sleep', '60']);
      await pod.agent.signalProcess({ containerId: deaf, execId: deaf, signal: 15 });
      expect(await pod.agent.waitProcess({ containerId: deaf })).toMatchObject({ status: 137 });
      const both = await run(['sh', '-c', 'sleep 60 & wait']);
      await pod.agent.execProcess({
        containerId: both,
        execId: 'e',
        process: { Args: ['sleep', '60'], Env: ['PATH=/bin'], Cwd: '/' },
      });
      await pod.agent.signalProcess({ containerId: both, signal: 9 });
      expect(await pod.agent.waitProcess({ containerId: both })).toMatchObject({ status: 137 });
      expect(await pod.agent.waitProcess({ containerId: both, execId: 'e' })).toMatchObject({ status: 137 });
      await expect(pod.agent.signalProcess({ containerId: both, signal: 9 })).rejects.toMatchObject({
        status: Status.notFound,
      });
    });

    it('says why a container does not start, and removes one that never ran', async () => {
      const missing = 'never';
      await pod.agent.createContainer(containerRequest(pod.root, { id: missing, args: ['/no/such/program'] }));
      await expect(pod.agent.startContainer({ containerId: missing })).rejects.toMatchObject({
        status: Status.internal,
        message: expect.stringContaining('/no/such/program'),
      });
      await pod.agent.signalProcess({ containerId: missing, signal: 9 });
      expect(await pod.agent.waitProcess({ containerId: missing })).toMatchObject({ status: 137 });
      await pod.agent.removeContainer({ containerId: missing });
      expect(existsSync(join(pod.root, missing))).toBe(false);
    });

    it('keeps the pause container without a process, and sets the pod’s sysctls with it', async () => {
      const request = containerRequest(pod.root, { id: 'pause', args: ['/pause'] });
      request.OCI.Annotations = { 'io.kubernetes.cri.container-type': 'sandbox' };
      if (request.OCI.Linux) request.OCI.Linux.Sysctl = { 'kernel.shm_rmid_forced': '1' };
      await pod.agent.createContainer(request);
      await pod.agent.startContainer({ containerId: 'pause' });
      expect(await stdout('pause')).toBe('');
      expect(readFileSync(join(pod.sysctl, 'kernel/shm_rmid_forced'), 'utf8')).toBe('1');
      const waiting = pod.agent.waitProcess({ containerId: 'pause' });
      await pod.agent.signalProcess({ containerId: 'pause', signal: 15 });
      expect(await waiting).toMatchObject({ status: 143 });
      await pod.agent.removeContainer({ containerId: 'pause' });
    });

    it('shows a container what was copied in, and an emptyDir to two of them', async () => {
      const file = join(pod.root, 'shared/containers/c-0123456789abcdef-token');
      await pod.agent.copyFile({
        path: file,
        fileSize: 5n,
        fileMode: 0o100640,
        dirMode: 0o750,
        data: Buffer.from('token'),
      });
      const storage = {
        driver: 'ephemeral',
        fstype: 'tmpfs',
        source: 'tmpfs',
        options: ['size=1m'],
        mountPoint: join(pod.root, 'sandbox/ephemeral/scratch'),
      };
      const wish = (id: string, args: string[]) => {
        const request = containerRequest(pod.root, { id, args });
        request.OCI.Mounts.push(
          ...containerRequest(pod.root, {
            id,
            args,
            spec: {
              Mounts: [
                { destination: '/mnt/token', type: 'bind', source: file, options: ['rbind', 'ro'] },
                { destination: '/mnt/scratch', type: 'bind', source: storage.mountPoint, options: ['rbind', 'rw'] },
              ],
            },
          }).OCI.Mounts,
        );
        return { ...request, storages: [...request.storages, storage] };
      };
      await pod.agent.createContainer(wish('writer', ['sh', '-c', 'cat /mnt/token > /mnt/scratch/copy']));
      await pod.agent.createContainer(wish('reader', ['sh', '-c', 'cat /mnt/scratch/copy; echo x > /mnt/token']));
      await pod.agent.startContainer({ containerId: 'writer' });
      expect(await stderr('writer')).toBe('');
      expect(await pod.agent.waitProcess({ containerId: 'writer' })).toMatchObject({ status: 0 });
      await pod.agent.removeContainer({ containerId: 'writer' });
      await pod.agent.startContainer({ containerId: 'reader' });
      expect(await stdout('reader')).toBe('token');
      expect(await pod.agent.waitProcess({ containerId: 'reader' })).toMatchObject({ status: 1 });
      await pod.agent.removeContainer({ containerId: 'reader' });
      // The volume is the pod's and stays for containers that come later; nothing else does.
      const mounted = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
      const ours = mounted.map((line) => line.split(' ')[4] ?? '').filter((point) => point.startsWith(pod.root));
      expect(ours).toEqual([storage.mountPoint]);
    });

    it('refuses to mount what lies outside, also through a link that was copied in', async () => {
      const link = join(pod.root, 'shared/containers/link');
      await pod.agent.copyFile({ path: link, fileMode: 0o120777, data: Buffer.from('/etc') });
      for (const source of ['/etc', link, `${pod.root}/../../etc`]) {
        const id = `c${++count}`;
        const request = containerRequest(pod.root, { id, args: ['ls', '/mnt'] });
        const [proc] = request.OCI.Mounts;
        if (proc !== undefined)
          request.OCI.Mounts.push({ ...proc, destination: '/mnt', type: 'bind', source, options: ['rbind'] });
        await pod.agent.createContainer(request);
        await expect(pod.agent.startContainer({ containerId: id })).rejects.toMatchObject({
          status: Status.invalidArgument,
        });
        await pod.agent.removeContainer({ containerId: id });
      }
    });

    it('serves many containers at once', async () => {
      const results = await Promise.all(
        Array.from({ length: 6 }, async (_item, index) => {
          const id = await run(['sh', '-c', `echo ${index}; exit ${index}`]);
          const text = await stdout(id);
          const { status } = await pod.agent.waitProcess({ containerId: id });
          await pod.agent.removeContainer({ containerId: id });
          return [text, status];
        }),
      );
      expect(results).toEqual(Array.from({ length: 6 }, (_item, index) => [`${index}\n`, index]));
    });

    it('refuses ids that are no names, and ids twice', async () => {
      for (const id of ['../x', 'a/b', '', 'shared', '-x']) {
        await expect(
          pod.agent.createContainer(containerRequest(pod.root, { id, args: ['true'] })),
        ).rejects.toMatchObject({
          status: Status.invalidArgument,
        });
      }
      const id = await run(['true']);
      await expect(pod.agent.createContainer(containerRequest(pod.root, { id, args: ['true'] }))).rejects.toMatchObject(
        {
          status: Status.alreadyExists,
        },
      );
      await pod.agent.removeContainer({ containerId: id });
    });
  },
);
