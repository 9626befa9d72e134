import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { openRemoteCommand, type RemoteCommand } from '@sealpod/runtimeclass/cri/stream';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { containerdBinaries } from './fixtures/containerd.ts';
import { shimFiles, shimProcesses, startNode, type TestNode } from './fixtures/node.ts';
import { textOf } from './fixtures/registry.ts';

/** Waits for a condition of the world outside, which nobody announces. */
const eventually = { timeout: 20_000, interval: 50 };

/** The last bytes of a file; empty where there is none yet. */
function endOf(path: string): string {
  if (!existsSync(path)) return '';
  const descriptor = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(64);
    const size = fstatSync(descriptor).size;
    const read = readSync(descriptor, bytes, 0, bytes.length, Math.max(0, size - bytes.length));
    return bytes.toString('latin1', 0, read);
  } finally {
    closeSync(descriptor);
  }
}
const killedBySignal = 137;

for (const binary of containerdBinaries) {
  // A skipped suite shows its reason in its name: newer containerds are built once by fixtures/build-containerd.sh.
  const missing = existsSync(binary.containerd) ? '' : ` (skipped: ${binary.containerd} is not there)`;
  describe.skipIf(missing !== '')(`the shim on ${binary.name}${missing}`, () => {
    let node: TestNode;
    let image: string;
    const pods: string[] = [];

    beforeAll(async () => {
      node = await startNode(binary);
      image = node.registry.push('app');
      await node.containerd.cri.images.pullImage({ image: { image } });
    });
    afterAll(async () => {
      await node.stop();
      expect(shimFiles(node.containerd.socket, pods)).toEqual([]);
      expect(shimProcesses(node.shimPath)).toEqual([]);
    });

    // A test that failed must not make the next one fail.
    afterEach(async () => {
      if (node.adaptor.suspended) await node.adaptor.resume();
      node.adaptor.failure = undefined;
      await node.containerd.removePods();
    });

    const runPod = async (name: string, annotations: Record<string, string> = {}) => {
      const { runtime } = node.containerd.cri;
      const config = node.containerd.pod(name, annotations);
      const { podSandboxId } = await runtime.runPodSandbox({ config });
      pods.push(podSandboxId);
      return {
        podSandboxId,
        start: async (
          container: string,
          script: string,
          more: Parameters<TestNode['containerd']['container']>[3] = {},
        ) => {
          const { containerId } = await runtime.createContainer({
            podSandboxId,
            config: node.containerd.container(container, image, ['/bin/sh', '-c', script], more),
            sandboxConfig: config,
          });
          await runtime.startContainer({ containerId });
          return containerId;
        },
        log: (container: string) => textOf(join(node.folder, 'containerd/logs', name, `${container}.log`)),
        logEnd: (container: string) => endOf(join(node.folder, 'containerd/logs', name, `${container}.log`)),
        remove: async () => {
          await runtime.stopPodSandbox({ podSandboxId });
          await runtime.removePodSandbox({ podSandboxId });
        },
      };
    };
    const exitCode = async (containerId: string): Promise<number | undefined> => {
      const { status } = await node.containerd.cri.runtime.containerStatus({ containerId });
      // 2 = exited
      return status?.state === 2 ? status.exitCode : undefined;
    };

    test('a pull brings no layer to the node, of a plain or of an encrypted image', async () => {
      const encrypted = node.registry.push('encrypted', { encrypted: true });
      await node.containerd.cri.images.pullImage({ image: { image: encrypted } });
      const { images } = await node.containerd.cri.images.listImages({});
      const tags = images.flatMap(({ repoTags }) => repoTags);
      expect(tags).toContain(image);
      expect(tags).toContain(encrypted);
      const content = node.containerd.ctr('content', 'ls', '-q').split('\n');
      expect(content.length).toBeGreaterThan(3);
      expect(node.registry.layers.size).toBe(3);
      expect(content.filter((digest) => node.registry.layers.has(digest))).toEqual([]);
    });

    test('lifecycle: logs, exec, statistics, exit codes, and the guest is asked in the right order', async () => {
      const { runtime } = node.containerd.cri;
      const initdata = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n';
      const pod = await runPod('lifecycle', {
        'io.katacontainers.config.hypervisor.cc_init_data': gzipSync(initdata).toString('base64'),
      });
      const machine = node.adaptor.machines.get(pod.podSandboxId);
      expect(machine?.annotations).toMatchObject({
        'io.kubernetes.cri.sandbox-name': 'lifecycle',
        'io.kubernetes.cri.sandbox-namespace': 'default',
        'io.katacontainers.config.hypervisor.cc_init_data': initdata,
        'io.katacontainers.config.hypervisor.machine_type': '',
      });
      expect(existsSync(machine?.networkNamespacePath ?? '')).toBe(true);

      const containerId = await pod.start('main', 'echo out; echo err >&2; trap "exit 7" TERM; sleep 1000 & wait');
      await expect
        .poll(() => pod.log('main'), eventually)
        .toMatch(/stdout F out[\s\S]*stderr F err|stderr F err[\s\S]*stdout F out/);

      const exec = await runtime.execSync({
        containerId,
        cmd: ['/bin/sh', '-c', 'echo o; echo e >&2; exit 3'],
        timeout: 20n,
      });
      expect(exec.exitCode).toBe(3);
      expect(Buffer.from(exec.stdout).toString()).toBe('o\n');
      expect(Buffer.from(exec.stderr).toString()).toBe('e\n');

      const { stats } = await runtime.containerStats({ containerId });
      expect(stats?.memory?.workingSetBytes?.value).toBe(40_000_000n);
      expect(stats?.cpu?.usageCoreNanoSeconds?.value).toBe(123_000_000n);

      await runtime.stopContainer({ containerId, timeout: 20n });
      expect(await exitCode(containerId)).toBe(7);

      const calls = node.adaptor.calls(pod.podSandboxId);
      const order = calls.map(({ method }) => method).filter((method) => method !== 'CopyFile');
      expect(order.slice(0, 7)).toEqual([
        'CreateSandbox',
        'GetGuestDetails',
        'CreateContainer',
        'StartContainer',
        'CreateContainer',
        'StartContainer',
        'ExecProcess',
      ]);
      expect(order.at(-1)).toBe('RemoveContainer');
      expect(calls[0]?.request).toMatchObject({
        hostname: 'lifecycle',
        dns: expect.arrayContaining(['nameserver 192.0.2.53']),
      });
      const [sandbox, container] = calls
        .filter(({ method }) => method === 'CreateContainer')
        .map(({ request }) => request);
      expect(sandbox).toMatchObject({ storages: [{ driver: 'image_guest_pull', source: 'pause' }] });
      expect(container).toMatchObject({
        containerId,
        storages: [
          { driver: 'image_guest_pull', source: image, mountPoint: `/run/kata-containers/${containerId}/rootfs` },
        ],
        OCI: { Root: { Path: `/run/kata-containers/${containerId}/rootfs` } },
      });
      const text = JSON.stringify(container);
      expect(text).toContain('io.katacontainers.pkg.oci.container_type');
      expect(text).not.toContain('cc_init_data');
      // resolv.conf reached the guest's folder, under a confined name.
      const copies = calls.filter(({ method }) => method === 'CopyFile').map(({ request }) => String(request['path']));
      expect(copies.length).toBeGreaterThan(0);
      for (const path of copies)
        expect(path).toMatch(/^\/run\/kata-containers\/shared\/containers\/[0-9a-f]{64}-[0-9a-f]{16}-[\w.-]+$/);
      await pod.remove();
      expect(node.adaptor.machines.has(pod.podSandboxId)).toBe(false);
    });

    test('a container that ignores SIGTERM is killed after its grace period', async () => {
      const pod = await runPod('grace');
      const containerId = await pod.start('stubborn', 'trap "" TERM; echo ready; while :; do sleep 1000; done');
      await expect.poll(() => pod.log('stubborn'), eventually).toContain('ready');
      const began = Date.now();
      await node.containerd.cri.runtime.stopContainer({ containerId, timeout: 1n });
      expect(Date.now() - began).toBeGreaterThan(900);
      expect(await exitCode(containerId)).toBe(killedBySignal);
      await pod.remove();
    });

    test('20 MB of output arrive whole and in order', async () => {
      const pod = await runPod('output');
      const containerId = await pod.start('large', 'seq 1 2700000');
      await expect.poll(() => exitCode(containerId), { timeout: 60_000, interval: 100 }).toBe(0);
      // containerd tells the exit while it still copies what it has read into the log.
      // The log is nine times as large as the output, and not read whole until it is complete.
      await expect.poll(() => pod.logEnd('large'), { timeout: 60_000, interval: 200 }).toMatch(/stdout F 2700000\n$/);
      const lines = pod.log('large').trimEnd().split('\n');
      expect(lines.length).toBe(2_700_000);
      const wrong = lines.findIndex((line, index) => !line.endsWith(`stdout F ${index + 1}`));
      expect(wrong).toBe(-1);
      await pod.remove();
    });

    test('a terminal: exec with standard input and resize', async () => {
      const pod = await runPod('terminal');
      const containerId = await pod.start('main', 'sleep 1000');
      const { url } = await node.containerd.cri.runtime.exec({
        containerId,
        cmd: ['/bin/sh'],
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
      });
      let output = '';
      const opened = Promise.withResolvers<RemoteCommand>();
      const command = await openRemoteCommand(url, {
        stdin: (async function* () {
          (await opened.promise).resize(97, 31);
          await expect
            .poll(() => node.adaptor.calls(pod.podSandboxId).at(-1), eventually)
            .toMatchObject({ method: 'TtyWinResize', request: { row: 31, column: 97 } });
          yield Buffer.from('stty size; echo "ready"\n');
          await expect.poll(() => output, eventually).toMatch(/31 97\s+ready/);
          yield Buffer.from('exit 5\n');
        })(),
        onStdout: (data) => {
          output += Buffer.from(data).toString();
        },
      });
      opened.resolve(command);
      expect(await command.exitCode).toBe(5);
      await pod.remove();
    });

    test('standard input of a container reaches it, and its end too', async () => {
      const pod = await runPod('input');
      const containerId = await pod.start('reader', 'wc -c', { stdin: true, stdinOnce: true });
      const { url } = await node.containerd.cri.runtime.attach({
        containerId,
        stdin: true,
        stdout: true,
        stderr: false,
      });
      const sent = Promise.withResolvers<void>();
      const command = await openRemoteCommand(url, {
        stdin: (async function* () {
          for (let chunk = 0; chunk < 30; chunk++) yield Buffer.alloc(10_000, 'x');
          sent.resolve();
        })(),
        onStdout: () => undefined,
      });
      // stdinOnce: the end of the attached stream is the end of the input (containerd sends CloseIO).
      await sent.promise;
      command.close();
      await expect.poll(() => exitCode(containerId), eventually).toBe(0);
      await expect.poll(() => pod.log('reader'), eventually).toContain('stdout F 300000');
      await pod.remove();
    });

    test('what adaptor and guest say stands in the error, with code and correlation id', async () => {
      const { runtime } = node.containerd.cri;
      node.adaptor.failure = new Error('HYPERVISOR: no capacity (correlation id 77aa)');
      await expect(runPod('no-machine')).rejects.toThrow(
        /failed to create shim task: HYPERVISOR: no capacity \(correlation id 77aa\)/,
      );
      node.adaptor.failure = undefined;
      expect(node.adaptor.machines.size).toBe(0);
      await expect.poll(() => shimProcesses(node.shimPath), eventually).toEqual([]);

      const pod = await runPod('refused');
      const refused = node.registry.push('refused');
      await node.containerd.cri.images.pullImage({ image: { image: refused } });
      const { containerId } = await runtime.createContainer({
        podSandboxId: pod.podSandboxId,
        config: node.containerd.container('refused', refused, ['/bin/true']),
        sandboxConfig: node.containerd.pod('refused'),
      });
      await expect(runtime.startContainer({ containerId })).rejects.toThrow(
        /IMG_POLICY_DENY: the image policy refuses the image \(correlation id 4f1c\)/,
      );
      // The pod is not harmed by it.
      expect(await pod.start('good', 'sleep 1000')).toMatch(/^[0-9a-f]{64}$/);
      await pod.remove();

      await expect(
        runPod('bad-annotation', { 'io.katacontainers.config.hypervisor.kernel_params': 'init=/bin/sh' }),
      ).rejects.toThrow(/POLICY_DENY: annotation io.katacontainers.config.hypervisor.kernel_params is not enabled/);
      expect(node.adaptor.machines.size).toBe(0);
    });

    test('two pods at once, each with a shim and a machine of its own', async () => {
      const [a, b] = await Promise.all([runPod('first'), runPod('second')]);
      expect(shimProcesses(node.shimPath).length).toBe(2);
      await Promise.all([a.start('main', 'echo a; sleep 1000'), b.start('main', 'echo b; sleep 1000')]);
      await expect.poll(() => a.log('main'), eventually).toContain('stdout F a');
      await expect.poll(() => b.log('main'), eventually).toContain('stdout F b');
      await Promise.all([a.remove(), b.remove()]);
      expect(node.adaptor.machines.size).toBe(0);
    });

    test('containerd is restarted: the pod stays, its output, exec and exit are there afterwards', async () => {
      const pod = await runPod('restart');
      const containerId = await pod.start('main', 'trap "exit 9" TERM; echo before; sleep 1000 & wait');
      await expect.poll(() => pod.log('main'), eventually).toContain('before');
      const shims = shimProcesses(node.shimPath);
      await node.containerd.stopContainerd('SIGKILL');
      await node.containerd.startContainerd();
      expect(shimProcesses(node.shimPath)).toEqual(shims);
      const { runtime } = node.containerd.cri;
      const { status } = await runtime.containerStatus({ containerId });
      expect(status?.state).toBe(1);
      const exec = await runtime.execSync({ containerId, cmd: ['/bin/echo', 'after'], timeout: 20n });
      expect(Buffer.from(exec.stdout).toString()).toBe('after\n');
      await runtime.stopContainer({ containerId, timeout: 20n });
      expect(await exitCode(containerId)).toBe(9);
      await pod.remove();
      expect(node.adaptor.machines.size).toBe(0);
    });

    test('kill -9 of the shim: the machine is stopped, containers are reported dead, nothing is left', async () => {
      const pod = await runPod('killed');
      const containerId = await pod.start('main', 'sleep 1000');
      const [pid] = shimProcesses(node.shimPath);
      expect(pid).toBeTypeOf('number');
      process.kill(pid ?? 0, 'SIGKILL');
      await expect.poll(() => node.adaptor.machines.size, eventually).toBe(0);
      await expect.poll(() => exitCode(containerId), eventually).not.toBe(undefined);
      expect(await exitCode(containerId)).not.toBe(0);
      await pod.remove();
      expect(shimFiles(node.containerd.socket, pods)).toEqual([]);
    });

    test('kill -9 of the shim while the adaptor is away: the next pod on the node stops the machine', async () => {
      const pod = await runPod('orphan');
      const [pid] = shimProcesses(node.shimPath);
      await node.adaptor.suspend();
      process.kill(pid ?? 0, 'SIGKILL');
      await expect
        .poll(async () => {
          const { status } = await node.containerd.cri.runtime.podSandboxStatus({ podSandboxId: pod.podSandboxId });
          return status?.state;
        }, eventually)
        .toBe(1);
      // As kubelet: once more while containerd still cleans up.
      const removed = () =>
        pod.remove().then(
          () => true,
          () => false,
        );
      await expect.poll(removed, eventually).toBe(true);
      expect(node.adaptor.machines.size).toBe(1);
      await node.adaptor.resume();
      const next = await runPod('next');
      await expect.poll(() => [...node.adaptor.machines.keys()], eventually).toEqual([next.podSandboxId]);
      await next.remove();
    });

    test('the machine dies: every container has exited with 137, and the pod is not ready', async () => {
      const pod = await runPod('dead');
      const containerId = await pod.start('main', 'sleep 1000');
      node.adaptor.machines.get(pod.podSandboxId)?.guest?.kill('SIGKILL');
      await expect.poll(() => exitCode(containerId), eventually).toBe(killedBySignal);
      await expect
        .poll(async () => {
          const { status } = await node.containerd.cri.runtime.podSandboxStatus({ podSandboxId: pod.podSandboxId });
          return status?.state;
        }, eventually)
        .toBe(1);
      await pod.remove();
    });

    test('out of memory in the guest is the reason of the container', async () => {
      const pod = await runPod('memory');
      const containerId = await pod.start('main', 'echo ready; sleep 1000');
      await expect.poll(() => pod.log('main'), eventually).toContain('ready');
      node.adaptor.machines.get(pod.podSandboxId)?.guest?.kill('SIGUSR1');
      await expect
        .poll(() => readFileSync(join(node.folder, 'containerd/containerd.log'), 'utf8'), eventually)
        .toMatch(/TaskOOM/);
      await node.containerd.cri.runtime.stopContainer({ containerId, timeout: 0n });
      const { status } = await node.containerd.cri.runtime.containerStatus({ containerId });
      expect(status?.reason).toBe('OOMKilled');
      await pod.remove();
    });
  });
}
