import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { agentPolicy } from '@sealpod/cli/pod';
import { findProcesses } from '@sealpod/processes';
import { initdataAnnotation, workloadInitdata } from '@sealpod/workload';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { root } from '../e2e/environment.ts';
import { clusterObstacle, nodeObstacle } from './access.ts';
import { TestCluster } from './test-cluster.ts';

const obstacle = clusterObstacle() ?? nodeObstacle();
const placed = ['/opt/sealpod', '/etc/sealpod', '/var/lib/sealpod/log', '/run/sealpod/services.json'];
const taken = placed.filter((path) => existsSync(path));
const reason = obstacle ?? (taken.length === 0 ? undefined : `${taken.join(', ')} is there: something is installed`);
const minutes = 60_000;

/** The local port of `kubectl port-forward`, once it listens. */
async function forwardPort(process: ChildProcessWithoutNullStreams) {
  for await (const line of createInterface(process.stdout)) {
    const port = /^Forwarding from 127\.0\.0\.1:(\d+)/.exec(line)?.[1];
    if (port !== undefined) return { port, process };
  }
  throw new Error('kubectl port-forward ended');
}

/** The release, from its images, on a whole cluster: what the node agent places is on this machine's own root. */
describe.skipIf(reason !== undefined)(`installation${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  const cluster = new TestCluster();
  const name = 'sealed';
  let before: string[];

  /** Runs a verb of the command line with the cluster's programs on the PATH. */
  const sealpod = async (...args: readonly string[]): Promise<string> => {
    const { programs, kubeconfig } = cluster.cluster;
    const PATH = `${programs}:${process.env['PATH'] ?? ''}`;
    const env = { ...cluster.environment, PATH, KUBECONFIG: kubeconfig };
    const options = { env, cwd: root, timeout: 40 * minutes, maxBuffer: 64 << 20 };
    return (await promisify(execFile)(join(root, 'cli/bin/sealpod'), args, options)).stdout;
  };
  const release = () => [
    ...['--values', join(cluster.directory, 'values.json')],
    ...['--images', `${cluster.cluster.registry}/release`, '--plain-http'],
    ...['--set', 'controller.replicas=1', '--set', 'runtime.webhook.replicas=1'],
  ];
  const machines = () => findProcesses({ executable: 'qemu-system-x86_64', marker: '/run/sealpod/pods/' });
  /** What an installation may leave: files, mounts, processes, the node's own words, resource definitions. */
  const traces = async (): Promise<string[]> => {
    const node = JSON.parse(await cluster.ok('get', 'node', '-o', 'json')) as {
      items: { metadata: { labels: Record<string, string> }; status: { capacity: Record<string, string> } }[];
    };
    const [{ metadata, status } = { metadata: { labels: {} }, status: { capacity: {} } }] = node.items;
    const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
    return [
      ...placed.filter((path) => existsSync(path)),
      ...mounts.filter((line) => line.includes('sealpod') && !line.includes(cluster.home)),
      ...machines().map(({ pid }) => `machine ${pid}`),
      ...Object.keys(metadata.labels).filter((label) => label.startsWith('sealpod.io/')),
      ...Object.keys(status.capacity).filter((resource) => resource.startsWith('sealpod.io/')),
      ...(await cluster.ok('get', 'crd,runtimeclass,ns', '-o', 'name'))
        .split('\n')
        .filter((line) => /sealpod/.test(line)),
      readFileSync(cluster.cluster.containerdConfiguration, 'utf8'),
    ];
  };
  const restarts = async (): Promise<unknown> => {
    const pod = await cluster.get('pod', name);
    const { containerStatuses } = pod['status'] as {
      containerStatuses: { restartCount: number; containerID: string }[];
    };
    return [containerStatuses[0]?.restartCount, containerStatuses[0]?.containerID, machines()[0]?.pid];
  };

  beforeAll(async () => {
    const up = await cluster.up();
    expect(up.code, up.stderr).toBe(0);
    await cluster.useImage();
    before = await traces();
    await sealpod('release', 'images', '--push', `${cluster.cluster.registry}/release`, '--plain-http');
  }, 60 * minutes);
  afterAll(async () => {
    try {
      expect((await cluster.sealpod('cluster', 'down')).code).toBe(0);
      expect(placed.filter((path) => existsSync(path))).toEqual([]);
    } finally {
      await cluster.remove();
    }
  }, 10 * minutes);

  it('installs, and a pod runs in a machine of its own', { timeout: 30 * minutes }, async () => {
    await sealpod('install', ...release());
    expect(await sealpod('doctor', '--cluster')).not.toContain('WRONG');
    const { metadata } = (await cluster.get('namespace', 'sealpod-system')) as { metadata: { labels: object } };
    expect(metadata.labels).toMatchObject({ 'pod-security.kubernetes.io/enforce': 'restricted' });
    const command = ['/bin/sh', '-c', 'echo begun; exec sleep 100000'];
    const { annotation } = workloadInitdata({
      kbs: {
        url: 'https://192.0.2.1:8080',
        certificatePem: readFileSync(join(cluster.directory, 'pki/ca.crt'), 'utf8'),
      },
      plainHttpRegistries: [cluster.cluster.registry],
      images: [cluster.image],
      agentPolicy: agentPolicy({ containers: [{ image: cluster.image, args: command }], allowExec: true }),
    });
    const annotations = { [initdataAnnotation]: annotation };
    await cluster.apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, annotations },
      spec: {
        runtimeClassName: 'sealpod',
        terminationGracePeriodSeconds: 2,
        containers: [{ name: 'main', image: cluster.image, command }],
      },
    });
    await cluster.waitFor('condition=Ready', `pod/${name}`);
    expect(await cluster.ok('logs', name)).toBe('begun\n');
    expect(machines()).toHaveLength(1);
  });

  it('gives an encrypted Deployment its key, by a key broker that the controller makes', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const owner = cluster.file('owner.pem', String(privateKey.export({ format: 'pem', type: 'pkcs8' })));
    const inSystem = ['--namespace', 'sealpod-system'];
    const { tpmRoots } = parse(await sealpod('podvm', 'tpm-roots')) as { tpmRoots: readonly object[] };
    expect(tpmRoots).toMatchObject([{ name: expect.any(String), simulated: true }]);
    await cluster.apply({
      apiVersion: 'sealpod.io/v1alpha1',
      kind: 'TrustService',
      metadata: { name: 'main', namespace: 'sealpod-system' },
      spec: {
        administrators: [{ name: 'owner', publicKey: publicKey.export({ format: 'pem', type: 'spki' }) }],
        // Guests use the first; the owner comes by port-forward.
        hosts: ['main-key-broker.sealpod-system.svc', '127.0.0.1'],
        tpmRoots,
        storage: { onDelete: 'Delete' },
      },
    });
    await cluster.waitFor('condition=Ready', ...inSystem, 'trustservice/main');
    const { status } = (await cluster.get('trustservice', 'main', ...inSystem)) as {
      status: { url: string; certificate: string };
    };
    const certificate = cluster.file('main.pem', status.certificate);
    const forward = await forwardPort(
      cluster.spawnKubectl('port-forward', ...inSystem, 'service/main-key-broker', ':8080'),
    );
    try {
      const asOwner = (...args: readonly string[]) =>
        sealpod(
          '--kbs-url',
          `https://127.0.0.1:${forward.port}`,
          '--kbs-certificate',
          certificate,
          '--admin-key',
          owner,
          ...args,
        );
      // What this release's image measures, and that software TPMs will do here.
      await sealpod('podvm', 'measure');
      await asOwner('refvalue', 'put', '--file', join(cluster.home, 'pod-vm-images/default/reference-values.json'));
      const simulated = await asOwner('policy', 'get', 'attestation', 'simulated-tpm_cpu');
      await asOwner('policy', 'put', 'attestation', 'default_cpu', '--file', cluster.file('simulated.rego', simulated));

      const { registry } = cluster.cluster;
      const plain = await cluster.pushBusybox('tests/secret', 'only an attested guest reads this');
      const encrypted = `${registry}/sealed/secret:1`;
      const overHttp = ['--plain-http-registry', registry];
      await asOwner('image', 'encrypt', plain, encrypted, '--key', 'default/image-key/secret', ...overHttp);
      const deployment = {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'secret' },
        spec: {
          selector: { matchLabels: { app: 'secret' } },
          template: {
            metadata: { labels: { app: 'secret' } },
            spec: {
              runtimeClassName: 'sealpod',
              terminationGracePeriodSeconds: 2,
              containers: [
                { name: 'main', image: encrypted, command: ['/bin/sh', '-c', 'cat /content; exec sleep 100000'] },
              ],
            },
          },
        },
      };
      const digests = cluster.file('digests.json', '');
      const sealed = await sealpod(
        ...['policy', 'generate', '-f', cluster.file('deployment.yaml', stringify(deployment)), '--digests', digests],
        ...['--guest-kbs-url', status.url, '--guest-kbs-certificate', certificate, ...overHttp],
      );
      const [{ initdataDigest } = { initdataDigest: '' }] = JSON.parse(readFileSync(digests, 'utf8')) as {
        initdataDigest: string;
      }[];
      await asOwner('refvalue', 'put', 'tpm_initdata', initdataDigest);
      await cluster.ok('apply', '-f', cluster.file('sealed.yaml', sealed));
      await cluster.waitFor('condition=Available', 'deployment/secret');
      const logs = () => cluster.ok('logs', 'deployment/secret');
      await expect.poll(logs, { timeout: minutes }).toBe('only an attested guest reads this\n');
      const decisions = JSON.parse(await asOwner('-o', 'json', 'explain', '--last', '--all')) as { outcome: string }[];
      expect(decisions.map(({ outcome }) => outcome)).toContain('OK');
    } finally {
      forward.process.kill();
      await cluster.ok('delete', 'deployment', 'secret', '--wait', '--ignore-not-found');
      await cluster.waitFor('delete', 'pod', '--selector', 'app=secret');
      await cluster.ok('delete', 'trustservice', 'main', ...inSystem, '--wait');
    }
  });

  it('loses no pod with its node agent, nor by an upgrade', { timeout: 30 * minutes }, async () => {
    const running = await restarts();
    const agent = ['pod', '--namespace', 'sealpod-nodes', '-l', 'app.kubernetes.io/component=node-agent'];
    await cluster.ok('delete', '--wait', ...agent);
    await cluster.waitFor('condition=Ready', ...agent);
    expect(await restarts()).toEqual(running);
    const changed = [...release(), '--set', 'runtime.machines.perNode=7'];
    expect(await sealpod('upgrade', 'check', ...changed)).toMatch(/DaemonSet sealpod-nodes\/sealpod-node-agent/);
    await sealpod('upgrade', 'apply', ...changed);
    expect(await restarts()).toEqual(running);
    expect(await cluster.ok('exec', name, '--', 'echo', 'still here')).toBe('still here\n');
  });

  it('uninstalls without residue', { timeout: 30 * minutes }, async () => {
    await cluster.ok('delete', 'pod', name, '--wait');
    await sealpod('uninstall', '--purge');
    await expect.poll(traces, { timeout: 2 * minutes, interval: 1000 }).toEqual(before);
  });
});
