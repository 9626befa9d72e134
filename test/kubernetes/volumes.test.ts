import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { directVolumesFolder } from '@sealpod/cluster';
import { volumeKeysAnnotation } from '@sealpod/protocol/volume-keys';
import type { Container } from '@sealpod/workload';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clusterObstacle, nodeObstacle, skipped } from './access.ts';
import { TestCluster } from './test-cluster.ts';

const obstacle = clusterObstacle() ?? nodeObstacle();
const canary = `canary-${randomUUID()}`;
const keys = { '/data': 'kbs:///default/volume-key/k8s', '/dev/raw': 'none' };

describe.skipIf(obstacle !== undefined)(`persistent volumes on Kubernetes${skipped(obstacle)}`, () => {
  const cluster = new TestCluster();

  const claim = (name: string, volumeMode: 'Filesystem' | 'Block') => ({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name },
    spec: { accessModes: ['ReadWriteOnce'], volumeMode, resources: { requests: { storage: '64Mi' } } },
  });
  const specOf = (script: string, claims: { files: string; raw: string }) => ({
    restartPolicy: 'Never',
    terminationGracePeriodSeconds: 2,
    automountServiceAccountToken: false,
    containers: [
      {
        name: 'main',
        image: cluster.image,
        command: ['/bin/sh', '-ec', script],
        volumeMounts: [{ name: 'files', mountPath: '/data' }],
        volumeDevices: [{ name: 'raw', devicePath: '/dev/raw' }],
      } satisfies Container,
    ],
    volumes: Object.entries(claims).map(([name, claimName]) => ({ name, persistentVolumeClaim: { claimName } })),
  });
  const plain = (name: string, script: string, claims: { files: string; raw: string }) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: specOf(script, claims),
  });

  /** A sealed pod with the policy that the generator makes of it, enrolled. */
  async function sealed(name: string, script: string, claims: { files: string; raw: string }): Promise<object> {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, annotations: { [volumeKeysAnnotation]: JSON.stringify(keys) } },
      spec: { ...specOf(script, claims), runtimeClassName: 'sealpod' },
    };
    const { objects, digests } = await cluster.seal([pod]);
    await cluster.enrol(...Object.values(digests));
    const [made] = objects;
    if (made === undefined) throw new Error(`no pod ${name} was made`);
    return made;
  }

  /** Runs a pod to its end and removes it; returns what it wrote. */
  async function runToEnd(pod: object): Promise<string> {
    const { name } = (pod as { metadata: { name: string } }).metadata;
    await cluster.apply(pod);
    await cluster.waitFor('jsonpath={.status.phase}=Succeeded', `pod/${name}`);
    const log = await cluster.ok('logs', name);
    await cluster.delete(`pod/${name}`);
    return log;
  }

  const loops = (): string[] =>
    execFileSync('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE'], { encoding: 'utf8' })
      .split('\n')
      .filter((line) => line.includes(cluster.directory));
  const traces = (): string[] => [
    ...loops(),
    ...readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(cluster.directory) && /kubernetes\.io.csi/.test(line)),
    ...(existsSync(directVolumesFolder) ? readdirSync(directVolumesFolder) : []).filter((name) =>
      Buffer.from(name, 'base64url').toString().startsWith(cluster.directory),
    ),
  ];

  beforeAll(async () => {
    await cluster.start();
    const key = randomBytes(32).toString('hex');
    await cluster.sealpodWithInput(key, 'secret', 'put', 'default/volume-key/k8s', '--file', '-');
  });
  afterAll(() => cluster.stop());

  const write = `echo ${canary} > /data/file; echo ${canary} | dd of=/dev/raw conv=fsync 2>/dev/null; echo written`;
  const read = 'cat /data/file; head -c 43 /dev/raw';

  it('plain pods have file systems and block devices, and find what the one before wrote', async () => {
    const claims = { files: 'plain-files', raw: 'plain-raw' };
    await cluster.apply(claim(claims.files, 'Filesystem'), claim(claims.raw, 'Block'));
    expect(await runToEnd(plain('plain-writer', write, claims))).toContain('written');
    expect(await runToEnd(plain('plain-reader', read, claims))).toBe(`${canary}\n${canary}`);
    await expect.poll(traces, { timeout: 60_000 }).toEqual([]);
  });

  it('sealed pods have them too, unmounted on the node and encrypted; nothing is left when they end', async () => {
    const claims = { files: 'sealed-files', raw: 'sealed-raw' };
    await cluster.apply(claim(claims.files, 'Filesystem'), claim(claims.raw, 'Block'));
    expect(await runToEnd(await sealed('sealed-writer', write, claims))).toContain('written');
    const volume = (await cluster.get('pvc', claims.files)) as { spec: { volumeName: string } };
    const file = join(cluster.directory, 'volumes', volume.spec.volumeName, 'disk.img');
    const content = readFileSync(file);
    expect(content.subarray(0, 4).toString('latin1')).toBe('LUKS');
    expect(content.includes(canary)).toBe(false);
    expect(await runToEnd(await sealed('sealed-reader', read, claims))).toBe(`${canary}\n${canary}`);
    await expect.poll(traces, { timeout: 60_000 }).toEqual([]);

    // A pod of the node cannot have what is encrypted for a machine.
    await cluster.apply(plain('curious', 'cat /data/file', claims));
    await expect
      .poll(async () => cluster.ok('get', 'events', '--field-selector', 'involvedObject.name=curious'), {
        timeout: 60_000,
      })
      .toContain('is encrypted');
    await cluster.delete('pod/curious');
  });

  it('a claim that is deleted takes its volume along', async () => {
    await cluster.ok('delete', 'pvc', '--all', '--wait', '--timeout=60s');
    await expect.poll(() => readdirSync(join(cluster.directory, 'volumes')), { timeout: 60_000 }).toEqual([]);
    await expect.poll(async () => cluster.ok('get', 'pv', '-o', 'name'), { timeout: 60_000 }).toBe('');
  });
});
