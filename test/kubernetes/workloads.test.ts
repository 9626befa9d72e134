import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, skipped } from './access.ts';
import { pushHealthImage } from './grpc-health.ts';
import { TestCluster, type TestPod } from './test-cluster.ts';

/* What happens to containers over time: probes that fail, restart policies, hooks, ends, kernel settings, gRPC. */

const obstacle = clusterObstacle();
const shell = (text: string): readonly string[] => ['/bin/sh', '-c', text];

interface ContainerStatus {
  readonly name: string;
  readonly restartCount: number;
  readonly ready: boolean;
  readonly lastState?: { readonly terminated?: { readonly reason: string; readonly exitCode: number } };
}

describe.skipIf(obstacle !== undefined)(`the life of containers on Kubernetes${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();
  let healthImage = '';

  const status = async (pod: string, container: string): Promise<ContainerStatus | undefined> => {
    const { status: found } = (await cluster.get('pod', pod)) as {
      status: { containerStatuses?: readonly ContainerStatus[] };
    };
    return found.containerStatuses?.find(({ name }) => name === container);
  };
  const lives = (): TestPod => ({
    name: 'lives',
    containers: [
      {
        name: 'fails',
        // Healthy for its first seconds, at each start.
        command: shell('touch /tmp/healthy; sleep 12; rm /tmp/healthy; sleep 3600'),
        livenessProbe: {
          exec: { command: ['test', '-e', '/tmp/healthy'] },
          periodSeconds: 2,
          timeoutSeconds: 20,
          failureThreshold: 2,
        },
      },
      {
        name: 'hooks',
        command: shell('trap "exit 0" TERM; while :; do sleep 0.2; done'),
        lifecycle: {
          postStart: { exec: { command: [...shell('echo after start > /shared/started')] } },
          preStop: { exec: { command: [...shell('echo before stop > /proc/1/fd/1; sleep 1')] } },
        },
        volumeMounts: [{ name: 'shared', mountPath: '/shared' }],
      },
      {
        name: 'grpc',
        image: healthImage,
        command: ['/health', ':9090'],
        readinessProbe: { grpc: { port: 9090 }, periodSeconds: 1 },
        livenessProbe: { grpc: { port: 9090, service: 'alive' }, periodSeconds: 2, failureThreshold: 3 },
      },
    ],
    spec: {
      terminationGracePeriodSeconds: 20,
      volumes: [{ name: 'shared', emptyDir: {} }],
      securityContext: {
        sysctls: [
          { name: 'kernel.shm_rmid_forced', value: '1' },
          { name: 'net.ipv4.ip_local_port_range', value: '40000 50000' },
        ],
      },
    },
  });
  const job = (name: string, restartPolicy: string, command: readonly string[]) => ({
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name },
    spec: {
      backoffLimit: 2,
      template: cluster.template({
        name,
        containers: [{ name: 'main', command, volumeMounts: [{ name: 'state', mountPath: '/state' }] }],
        spec: { restartPolicy, volumes: [{ name: 'state', emptyDir: {} }] },
      }),
    },
  });

  beforeAll(async () => {
    await cluster.start();
    healthImage = await pushHealthImage(cluster);
    await cluster.apply(
      cluster.pod(lives()),
      job('succeeds', 'OnFailure', shell('test -e /state/tried && exit 0; touch /state/tried; exit 1')),
    );
    await cluster.waitFor('jsonpath={.status.containerStatuses[?(@.name=="grpc")].ready}=true', 'pod/lives');
  });
  afterAll(async () => {
    if (cluster.running)
      await cluster.kubectl('delete', 'pod/lives', 'job/succeeds', '--ignore-not-found', '--wait=false');
    await cluster.stop();
  });

  it('gRPC probes: ready once the server serves, restarted where a service of it does not', async () => {
    expect(await status('lives', 'grpc')).toMatchObject({ ready: true, restartCount: 0 });
    // The server answers "not serving" for the service that the liveness probe asks for, once it is told to.
    await cluster.ok('exec', 'lives', '-c', 'grpc', '--', '/health', '--fail');
    await expect
      .poll(async () => (await status('lives', 'grpc'))?.restartCount, { timeout: 120_000, interval: 1000 })
      .toBeGreaterThan(0);
    await cluster.told('lives', /Liveness probe failed/);
  });

  it('a failing liveness probe restarts the container', async () => {
    await expect
      .poll(async () => (await status('lives', 'fails'))?.restartCount, { timeout: 120_000, interval: 1000 })
      .toBeGreaterThan(0);
    // A shell as first process has no handler for SIGTERM.
    expect((await status('lives', 'fails'))?.lastState?.terminated).toMatchObject({ reason: 'Error', exitCode: 137 });
  });

  it('kernel settings of the pod are those of its guest', async () => {
    const read = (name: string) => cluster.ok('exec', 'lives', '-c', 'hooks', '--', 'cat', `/proc/sys/${name}`);
    expect(await read('kernel/shm_rmid_forced')).toBe('1\n');
    expect((await read('net/ipv4/ip_local_port_range')).trim().split(/\s+/)).toEqual(['40000', '50000']);
  });

  it('a Job runs to its end, its failed container started again in place (restartPolicy OnFailure)', async () => {
    await cluster.waitFor('condition=Complete', 'job/succeeds');
    const { items } = (await cluster.get('pods', '-l', 'app=succeeds')) as {
      items: readonly { status: { phase: string; containerStatuses: readonly ContainerStatus[] } }[];
    };
    expect(items.map(({ status: { phase } }) => phase)).toEqual(['Succeeded']);
    expect(items[0]?.status.containerStatuses[0]?.restartCount).toBe(1);
  });

  it('hooks run after the start, and before the end within the grace', async () => {
    expect(await cluster.ok('exec', 'lives', '-c', 'hooks', '--', 'cat', '/shared/started')).toBe('after start\n');
    const follow = cluster.spawnKubectl('logs', '-f', 'lives', '-c', 'hooks');
    let text = '';
    follow.stdout.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    try {
      await cluster.delete('pod/lives');
      expect(text).toBe('before stop\n');
    } finally {
      follow.kill();
    }
  });
});
