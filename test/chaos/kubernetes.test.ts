import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { recordDaemon } from '@sealpod/cluster';
import { runningProcesses } from '@sealpod/processes';
import { shimTraces } from '@sealpod/runtimeclass/shim/traces';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root } from '../e2e/environment.ts';
import { eventually } from '../e2e/started.ts';
import { clusterObstacle, nodeObstacle, skipped } from '../kubernetes/access.ts';
import { TestCluster } from '../kubernetes/test-cluster.ts';
import { processesOf } from './parts.ts';
import { killPrograms, type Program, programOf, startProgram } from './programs.ts';

const obstacle = clusterObstacle() ?? nodeObstacle();
/** What may die while the others go on. The shim is nobody's service: containerd starts one a pod. */
const victims = ['adaptor', 'containerd', 'kubelet', 'shim'] as const;
type Victim = (typeof victims)[number];

const patientMs = 240_000;
const counting = 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done';

describe.skipIf(obstacle !== undefined)(`kill -9 on a Kubernetes node${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();

  beforeAll(() => cluster.start());
  // Nothing of it may be left.
  afterAll(() => cluster.stop());

  const machines = (): number[] => processesOf(cluster, 'qemu').map(({ pid }) => pid);
  const sandboxDirectories = (): string[] => {
    const pods = `${cluster.runDirectory}/pods`;
    return existsSync(pods) ? readdirSync(pods) : [];
  };
  /** The service of that name, of the cluster or of the environment that its machines are from. */
  const serviceOf = (name: string): Program => {
    const daemon = [...cluster.cluster.daemons, ...cluster.state().daemons].find((one) => one.name === name);
    if (daemon === undefined) throw new Error(`${name} is no service here`);
    return programOf(daemon);
  };
  /** Kills what plays a part, and starts it again where it is a service. */
  const strike = async (victim: Victim): Promise<void> => {
    if (victim === 'shim') {
      await killPrograms(shims());
      return;
    }
    const program = victim === 'adaptor' ? programOf(adaptorProcess()) : serviceOf(victim);
    await killPrograms([program]);
    await again(program);
  };
  const again = async (program: Program): Promise<void> => {
    const daemon = startProgram(program);
    if (cluster.cluster.daemons.some(({ name }) => name === program.name)) recordDaemon(cluster.directory, daemon);
    const socket =
      program.name === 'adaptor'
        ? `${cluster.runDirectory}/hypervisor.sock`
        : program.name === 'containerd' && cluster.cluster.containerdSocket;
    if (socket) await eventually(`${program.name} serves again`, () => accepts(socket));
  };
  const adaptorProcess = (): { name: string; pid: number } => {
    const [running] = processesOf(cluster, 'adaptor');
    if (running === undefined) throw new Error('no adaptor runs');
    return { name: 'adaptor', pid: running.pid };
  };
  /** The shims of the cluster's containerd. */
  const shims = () =>
    runningProcesses().filter(
      ({ arguments: words }) =>
        words.includes('serve') &&
        words.some((word) => word.startsWith(cluster.home) && /\/shim\.(cjs|blob)$/.test(word)),
    );

  const pod = (name: string, script: string) =>
    cluster.pod({ name, containers: [{ name: 'main', command: ['/bin/sh', '-c', script] }] });
  const status = async (name: string) => {
    const { status: found } = (await cluster.get('pod', name)) as {
      status: {
        podIP?: string;
        containerStatuses?: {
          restartCount: number;
          lastState?: { terminated?: { exitCode: number; message?: string } };
        }[];
      };
    };
    const container = found.containerStatuses?.[0];
    return { restarts: container?.restartCount, last: container?.lastState?.terminated };
  };
  /** No machine, no directory and no socket of any pod; `kubectl delete` has returned. */
  const expectNothingOfPods = async (): Promise<void> => {
    await eventually(
      'the end of all machines',
      () => machines().length === 0 && sandboxDirectories().length === 0,
      patientMs,
    );
    expect(processesOf(cluster, 'swtpm')).toEqual([]);
    await eventually(
      'the end of all shims',
      () => shims().length === 0 && shimTraces(cluster.directory).length === 0,
      60_000,
    );
    const links = execFileSync('ip', ['-o', 'link', 'show', 'master', cluster.cluster.addresses.bridge], {
      encoding: 'utf8',
    });
    const plain = (await cluster.ok('get', 'pods', '-A', '-o', 'name')).trim().split('\n').filter(Boolean);
    expect(links.trim().split('\n').filter(Boolean).length).toBeLessThanOrEqual(plain.length);
  };

  /** Follows a log until `stop`; returns its lines. */
  function follow(name: string) {
    const { programs, kubeconfig } = cluster.cluster;
    const child = spawn(`${programs}/kubectl`, ['--kubeconfig', kubeconfig, 'logs', '-f', name], { cwd: root });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    return {
      lines: () => text.split('\n').slice(0, -1),
      stop: async () => {
        child.kill();
        await ended;
        return text.split('\n').slice(0, -1);
      },
    };
  }
  const expectConsecutive = (lines: readonly string[]): void =>
    expect(lines).toEqual(lines.map((_, index) => `line ${index}`));

  describe('while a pod runs', () => {
    beforeAll(async () => {
      await cluster.apply(pod('kept', counting));
      await cluster.waitFor('condition=Ready', 'pod/kept');
    });

    it.each(['adaptor', 'kubelet', 'containerd'] as const)(
      '%s: the pod goes on in its machine, no container is restarted, its log misses nothing',
      async (victim) => {
        const before = machines();
        expect(before).toHaveLength(1);
        const log = follow('kept');
        await eventually('the log', () => log.lines().length > 5);
        await strike(victim);
        const seen = log.lines().length;
        // The stream of kubectl passes through the kubelet, and is cut with it.
        if (victim !== 'kubelet') await eventually('more of the log', () => log.lines().length > seen + 10, 60_000);
        expectConsecutive(await log.stop());
        await eventually(
          'exec answers',
          async () => (await cluster.kubectl('exec', 'kept', '--', 'echo', 'here')).stdout === 'here\n',
          120_000,
        );
        expectConsecutive((await cluster.ok('logs', 'kept')).split('\n').slice(0, -1));
        expect(machines()).toEqual(before);
        expect((await status('kept')).restarts).toBe(0);
      },
    );

    it('adaptor, while 8 MB are copied in and out by exec: all bytes arrive', async () => {
      const { programs, kubeconfig } = cluster.cluster;
      const script = 'echo begun; cat > /tmp/in && sha256sum < /tmp/in';
      const child = spawn(`${programs}/kubectl`, [
        '--kubeconfig',
        kubeconfig,
        'exec',
        '-i',
        'kept',
        '--',
        'sh',
        '-c',
        script,
      ]);
      let answer = '';
      child.stdout.on('data', (chunk: Buffer) => {
        answer += chunk;
      });
      let complaint = '';
      child.stderr.on('data', (chunk: Buffer) => {
        complaint += chunk;
      });
      // Its exit code tells of a kubectl that ended early.
      child.stdin.on('error', () => undefined);
      const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
      await eventually('the begin of the copy', () => answer === 'begun\n', 60_000);
      const piece = Buffer.alloc(1 << 20, 'a');
      for (let sent = 0; sent < 8; sent++) {
        if (sent === 3) void strike('adaptor');
        await new Promise((resolve) => child.stdin.write(piece, resolve));
      }
      child.stdin.end();
      expect(await ended, complaint).toBe(0);
      const expected = execFileSync('sh', ['-c', 'head -c 8388608 /dev/zero | tr "\\0" a | sha256sum'], {
        encoding: 'utf8',
      });
      expect(answer).toBe(`begun\n${expected}`);
    });

    it('its machine: the container is reported with the reason, and runs again in another', async () => {
      const before = machines();
      await killPrograms(processesOf(cluster, 'qemu'));
      await eventually('a restart', async () => ((await status('kept')).restarts ?? 0) > 0, patientMs);
      expect((await status('kept')).last).toMatchObject({ exitCode: 137 });
      expect((await status('kept')).last?.message).toMatch(/VM_ENDED|guest agent does not answer/);
      await cluster.waitFor('condition=Ready', 'pod/kept');
      expect(machines()).toHaveLength(1);
      expect(machines()).not.toEqual(before);
    });

    it('shim: the pod is started again in another machine, and the first is gone', async () => {
      const before = machines();
      const restarts = (await status('kept')).restarts ?? 0;
      await strike('shim');
      await eventually('a restart', async () => ((await status('kept')).restarts ?? 0) > restarts, patientMs);
      await cluster.waitFor('condition=Ready', 'pod/kept');
      await eventually('one machine', () => machines().length === 1, 60_000);
      expect(machines()).not.toEqual(before);
    });

    it('all at once, as the node when it loses power: it comes up with the pod, and nothing of before', async () => {
      const cni = () => readdirSync('/run/netns').filter((name) => name.startsWith('cni-'));
      const before = machines();
      const services = [...cluster.cluster.daemons.map(programOf), programOf(adaptorProcess())];
      await killPrograms([...services, ...shims(), ...processesOf(cluster, 'qemu'), ...processesOf(cluster, 'swtpm')]);
      // A kubelet ends where containerd does not serve; a node's service manager has them in this order.
      const isKubelet = ({ name }: Program): boolean => name === 'kubelet';
      for (const service of services.filter((one) => !isKubelet(one))) await again(service);
      for (const service of services.filter(isKubelet)) await again(service);
      await eventually(
        'the pod runs again',
        async () => {
          const ready = await cluster.kubectl(
            'get',
            'pod',
            'kept',
            '-o',
            'jsonpath={.status.containerStatuses[0].ready}',
          );
          return ready.stdout === 'true' && machines().length === 1 && machines()[0] !== before[0];
        },
        patientMs,
      );
      expect(sandboxDirectories()).toHaveLength(1);
      await cluster.delete('pod/kept');
      await expectNothingOfPods();
      const plain = (await cluster.ok('get', 'pods', '-A', '-o', 'name')).trim().split('\n').filter(Boolean);
      await eventually('the end of network namespaces', () => cni().length <= plain.length, 60_000);
    });
  });

  describe.each(victims)('%s', (victim) => {
    it('while a pod is created, and while it is deleted: the pod comes and goes all the same', async () => {
      await cluster.apply(pod('moved', 'echo up; sleep 9999'));
      await eventually('a machine', () => machines().length > 0, patientMs);
      await strike(victim);
      await cluster.waitFor('condition=Ready', 'pod/moved');
      expect(await cluster.ok('exec', 'moved', '--', 'echo', 'here')).toBe('here\n');
      await eventually('one machine', () => machines().length === 1, 120_000);

      await cluster.ok('delete', '--wait=false', 'pod/moved');
      await strike(victim);
      await eventually(
        'the end of the pod',
        async () => (await cluster.kubectl('get', 'pod', 'moved')).code !== 0,
        patientMs,
      );
      await expectNothingOfPods();
    });
  });
});

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
