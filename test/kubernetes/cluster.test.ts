import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, nodeObstacle, skipped } from './access.ts';
import { TestCluster } from './test-cluster.ts';

const obstacle = clusterObstacle() ?? nodeObstacle();

describe.skipIf(obstacle !== undefined)(`the development cluster${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();
  const up = async (): Promise<void> => {
    const result = await cluster.up();
    expect(result.code, result.stderr).toBe(0);
    await cluster.useImage();
  };
  const pod = (name: string, ...command: readonly string[]) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name } },
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'main', image: cluster.image, command }] },
  });

  beforeAll(up);
  afterAll(async () => {
    try {
      expect((await cluster.sealpod('cluster', 'down')).code).toBe(0);
      expect(cluster.residue()).toEqual([]);
    } finally {
      await cluster.remove();
    }
  });

  it('serves pods from its registry, which they reach too, Services and names', async () => {
    const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'web' } };
    const serve = 'mkdir /tmp/w; echo page > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w';
    await cluster.apply(pod('web', 'sh', '-c', serve), pod('client', 'sleep', '3600'), {
      ...service,
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await cluster.waitFor('condition=Ready', 'pod/web', 'pod/client');
    const client = (text: string) => cluster.ok('exec', 'client', '--', 'sh', '-c', text);
    expect(await client('wget -qO- http://web/')).toBe('page\n');
    expect(await client('nslookup kubernetes.default.svc.cluster.local')).toMatch(/Address: 10\.203\./);
    expect(await client(`wget -qO- http://${cluster.cluster.registry}/v2/`)).toBe('{}');
  });

  it('says which program does not run', async () => {
    expect((await cluster.sealpod('cluster', 'status')).code).toBe(0);
    const scheduler = cluster.cluster.daemons.find(({ name }) => name === 'kube-scheduler');
    process.kill(scheduler?.pid ?? 0, 'SIGKILL');
    const status = await cluster.sealpod('cluster', 'status');
    expect(status.code).toBe(1);
    expect(status.stdout).toMatch(/kube-scheduler\s+DEAD/);
    expect(status.stderr).toContain('ended: kube-scheduler');
  });

  it('comes up again after all its programs were killed at once, with pods running, and knows nothing of them', async () => {
    for (const { pid } of cluster.cluster.daemons) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        // The scheduler is dead already.
        if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
      }
    }
    await up();
    expect(await cluster.ok('get', 'pods', '-o', 'name')).toBe('');
    await cluster.apply(pod('again', 'sleep', '3600'));
    await cluster.waitFor('condition=Ready', 'pod/again');
  });
});
