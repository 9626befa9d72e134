import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, skipped } from './access.ts';
import { TestCluster } from './test-cluster.ts';

/* What a node and its cluster measure, limit and move: resources of sealed pods, in place and by their number. */

const obstacle = clusterObstacle();
const steady = ['/bin/sh', '-c', 'trap "exit 0" TERM; while :; do sleep 0.5; done'];
/** Uses a third of a processor or so. */
const busy = [
  '/bin/sh',
  '-c',
  'trap "exit 0" TERM; while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.05; done',
];

describe.skipIf(obstacle !== undefined)(`resources of pods in machines of their own${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();

  const deployment = (name: string, replicas: number, command: readonly string[], resources: object) => ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: { app: name } },
      template: cluster.template({
        name,
        containers: [{ name: 'main', command, resources }],
        spec: { terminationGracePeriodSeconds: 10 },
      }),
    },
  });
  const cgroup = async (file: string): Promise<string> =>
    (await cluster.ok('exec', 'resized', '--', 'cat', `/sys/fs/cgroup/${file}`)).trim();

  beforeAll(async () => {
    await cluster.start();
    await cluster.apply(
      cluster.pod({
        name: 'resized',
        containers: [
          {
            name: 'main',
            command: steady,
            resources: { requests: { cpu: '50m', memory: '64Mi' }, limits: { cpu: '200m', memory: '64Mi' } },
          },
        ],
      }),
      deployment('busy', 1, busy, { requests: { cpu: '50m', memory: '32Mi' }, limits: { cpu: '500m' } }),
    );
    await cluster.waitFor('condition=Ready', 'pod/resized');
    await cluster.waitFor('condition=Available', 'deployment/busy');
  });
  afterAll(async () => {
    if (cluster.running) {
      await cluster.kubectl('uncordon', '--all');
      const objects = ['pod/resized', 'deployment/busy', 'deployment/drained', 'hpa/busy', 'pdb/drained'];
      await cluster.kubectl('delete', ...objects, '--ignore-not-found', '--wait=false');
    }
    await cluster.stop();
  });

  it('a resize in place reaches the guest’s cgroup, and the container runs on', async () => {
    expect([await cgroup('memory.max'), await cgroup('cpu.max')]).toEqual([String(64 << 20), '20000 100000']);
    const resources = { requests: { cpu: '60m', memory: '96Mi' }, limits: { cpu: '400m', memory: '96Mi' } };
    const patch = JSON.stringify({ spec: { containers: [{ name: 'main', resources }] } });
    await cluster.ok('patch', 'pod', 'resized', '--subresource', 'resize', '-p', patch);
    await expect.poll(() => cgroup('memory.max'), { timeout: 120_000, interval: 1000 }).toBe(String(96 << 20));
    await expect.poll(() => cgroup('cpu.max'), { timeout: 60_000, interval: 1000 }).toBe('40000 100000');
    const allocated = async (): Promise<unknown> => {
      const { status } = (await cluster.get('pod', 'resized')) as {
        status: { containerStatuses: readonly { restartCount: number; resources?: { limits?: object } }[] };
      };
      return status.containerStatuses.map(({ restartCount, resources: actual }) => [restartCount, actual?.limits]);
    };
    await expect.poll(allocated, { timeout: 60_000, interval: 1000 }).toEqual([[0, { cpu: '400m', memory: '96Mi' }]]);
  });

  it('the kubelet’s resource metrics, which metrics servers read, have the containers of the guest', async () => {
    const node = await cluster.ok('get', 'pod', 'resized', '-o', 'jsonpath={.spec.nodeName}');
    const metrics = () => cluster.ok('get', '--raw', `/api/v1/nodes/${node}/proxy/metrics/resource`);
    const value = (text: string, name: string): number =>
      Number(
        new RegExp(`^${name}\\{container="main",namespace="default",pod="resized"\\} (\\S+)`, 'm').exec(text)?.[1],
      );
    await expect
      .poll(async () => value(await metrics(), 'container_memory_working_set_bytes'), { timeout: 60_000 })
      .toBeGreaterThan(100_000);
    expect(value(await metrics(), 'container_cpu_usage_seconds_total')).toBeGreaterThan(0);
  });

  it('kubectl top, by the metrics API', async () => {
    await expect
      .poll(async () => (await cluster.kubectl('top', 'pod', 'resized', '--no-headers')).stdout, {
        timeout: 120_000,
        interval: 2000,
      })
      // A shell that sleeps has less than a MiB.
      .toMatch(/^resized\s+[1-9]\d*m\s+\d+Mi/);
  });

  it('a HorizontalPodAutoscaler adds a machine when the first is busy', async () => {
    await cluster.ok('autoscale', 'deployment', 'busy', '--cpu=30%', '--min=1', '--max=2');
    await expect
      .poll(() => cluster.ok('get', 'deployment', 'busy', '-o', 'jsonpath={.spec.replicas}'), {
        timeout: 180_000,
        interval: 2000,
      })
      .toBe('2');
    await cluster.ok('rollout', 'status', 'deployment/busy', '--timeout=240s');
    await cluster.delete('hpa/busy', 'deployment/busy');
  });

  it('a drain evicts sealed pods within their grace, and waits where a PodDisruptionBudget says so', async () => {
    await cluster.apply(
      deployment(
        'drained',
        1,
        ['/bin/sh', '-c', 'trap "echo got TERM; sleep 1; exit 0" TERM; echo up; while :; do sleep 0.2; done'],
        {},
      ),
      {
        apiVersion: 'policy/v1',
        kind: 'PodDisruptionBudget',
        metadata: { name: 'drained' },
        spec: { minAvailable: 1, selector: { matchLabels: { app: 'drained' } } },
      },
    );
    await cluster.waitFor('condition=Available', 'deployment/drained');
    await expect
      .poll(() => cluster.ok('get', 'pdb', 'drained', '-o', 'jsonpath={.status.currentHealthy}'), { timeout: 30_000 })
      .toBe('1');
    const node = await cluster.ok('get', 'pods', '-l', 'app=drained', '-o', 'jsonpath={.items[0].spec.nodeName}');
    const drain = (...more: readonly string[]) =>
      cluster.kubectl('drain', node, '--pod-selector=app=drained', '--delete-emptydir-data', ...more);
    const refused = await drain('--timeout=15s');
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("would violate the pod's disruption budget");

    await cluster.delete('pdb/drained');
    const follow = cluster.spawnKubectl('logs', '-f', 'deployment/drained');
    let text = '';
    follow.stdout.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    try {
      await expect.poll(() => text, { timeout: 30_000 }).toBe('up\n');
      const drained = await drain('--timeout=120s');
      expect(drained.code, drained.stderr).toBe(0);
      expect(text).toBe('up\ngot TERM\n');
    } finally {
      follow.kill();
    }
    // Its successor waits for a node that takes pods.
    const { items } = (await cluster.get('pods', '-l', 'app=drained')) as {
      items: readonly { status: { phase: string } }[];
    };
    expect(items.map(({ status: { phase } }) => phase)).toEqual(['Pending']);
    await cluster.ok('uncordon', node);
    await cluster.delete('deployment/drained');
  });
});
