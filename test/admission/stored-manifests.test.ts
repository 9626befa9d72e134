import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ImageResolver } from '../../workload/image/image.ts';
import { transformManifests } from '../../workload/transform.ts';
import { ApiServer, clusterPrograms } from './api-server.ts';

/*
 * What an API server makes of a manifest must not change its policy: each workload is written, read back with every default
 * that Kubernetes adds, and both give the same policy. And the tools of Kubernetes call the generator as they call others.
 */

const root = fileURLToPath(new URL('../..', import.meta.url));
const images: ImageResolver = async (text) => ({
  reference: `registry.test/${text.split(/[:@]/)[0]?.replace('registry.test/', '')}@sha256:${'a'.repeat(64)}`,
  entrypoint: ['/app'],
  command: ['serve'],
  environment: ['PATH=/bin', 'FROM_IMAGE=1'],
  workingDirectory: '/srv',
  user: '1000:1000',
});

const template = (restartPolicy: string) => ({
  metadata: { labels: { app: 'web' }, annotations: { note: 'x' } },
  spec: {
    runtimeClassName: 'sealpod',
    restartPolicy,
    securityContext: { fsGroup: 3000, sysctls: [{ name: 'net.ipv4.ip_unprivileged_port_start', value: '0' }] },
    initContainers: [
      { name: 'prepare', image: 'tool:1', command: ['/bin/prepare'] },
      { name: 'proxy', image: 'tool:1', restartPolicy: 'Always', ports: [{ containerPort: 15001 }] },
    ],
    containers: [
      {
        name: 'web',
        image: 'web:1',
        args: ['--mode=$(MODE)', '$$literal'],
        env: [
          { name: 'MODE', valueFrom: { configMapKeyRef: { name: 'settings', key: 'mode' } } },
          { name: 'EMPTY' },
          { name: 'NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
          { name: 'APP', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
          { name: 'CPU', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
          { name: 'PASSWORD', valueFrom: { secretKeyRef: { name: 'credentials', key: 'password' } } },
        ],
        envFrom: [{ configMapRef: { name: 'settings' }, prefix: 'CM_' }, { secretRef: { name: 'credentials' } }],
        resources: { limits: { cpu: 1, memory: '64Mi' } },
        readinessProbe: { exec: { command: ['/bin/ready'] } },
        livenessProbe: { httpGet: { port: 8080 } },
        lifecycle: { preStop: { exec: { command: ['/bin/stop'] } } },
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        volumeMounts: [
          { name: 'conf', mountPath: '/conf' },
          { name: 'conf', mountPath: '/one', subPath: 'mode' },
          { name: 'cred', mountPath: '/cred', readOnly: true },
          { name: 'scratch', mountPath: '/scratch' },
          { name: 'memory', mountPath: '/memory' },
          { name: 'info', mountPath: '/info' },
          { name: 'all', mountPath: '/all' },
        ],
      },
      { name: 'plain', image: 'other:1', tty: true, stdin: true },
    ],
    volumes: [
      { name: 'conf', configMap: { name: 'settings' } },
      { name: 'cred', secret: { secretName: 'credentials' } },
      { name: 'scratch' },
      { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '16Mi' } },
      { name: 'info', downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
      {
        name: 'all',
        projected: {
          sources: [
            { configMap: { name: 'settings' } },
            { secret: { name: 'credentials' } },
            { serviceAccountToken: { path: 'token' } },
          ],
        },
      },
    ],
  },
});

const metadata = { name: 'web', namespace: 'default' };
const selector = { matchLabels: { app: 'web' } };
const always = template('Always');
const never = template('Never');
const configuration = [
  { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings', namespace: 'default' }, data: { mode: 'fast' } },
  {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'credentials', namespace: 'default' },
    stringData: { password: 'secret', key: 'sealed.a.b.c' },
  },
];
const workloads: Readonly<Record<string, object>> = {
  pod: { apiVersion: 'v1', kind: 'Pod', metadata: { ...metadata, ...always.metadata }, spec: always.spec },
  deployment: { apiVersion: 'apps/v1', kind: 'Deployment', metadata, spec: { selector, template: always } },
  replicaset: { apiVersion: 'apps/v1', kind: 'ReplicaSet', metadata, spec: { selector, template: always } },
  replicationcontroller: { apiVersion: 'v1', kind: 'ReplicationController', metadata, spec: { template: always } },
  statefulset: {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata,
    spec: { selector, serviceName: 'web', template: always },
  },
  daemonset: { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata, spec: { selector, template: always } },
  job: { apiVersion: 'batch/v1', kind: 'Job', metadata, spec: { template: never } },
  cronjob: {
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata,
    spec: { schedule: '0 0 * * *', jobTemplate: { spec: { template: never } } },
  },
};

const missing =
  clusterPrograms === undefined ? ' (skipped: the cluster is not built, run `sealpod cluster up` once)' : '';
describe.skipIf(clusterPrograms === undefined)(`manifests and what an API server stores of them${missing}`, () => {
  let server: ApiServer;
  beforeAll(async () => {
    server = await ApiServer.start(clusterPrograms ?? '');
    server.apply({
      apiVersion: 'node.k8s.io/v1',
      kind: 'RuntimeClass',
      metadata: { name: 'sealpod' },
      handler: 'sealpod',
      overhead: { podFixed: { cpu: '250m', memory: '120Mi' } },
    });
    for (const object of configuration) server.apply(object);
  });
  afterAll(() => server?.stop());

  const policyOf = async (items: readonly object[]): Promise<string> => {
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
    const result = await transformManifests(list, { runtimeClasses: ['sealpod'], images });
    expect(result.workloads).toHaveLength(1);
    return result.workloads[0]?.policy ?? '';
  };

  it.each(Object.keys(workloads))('%s: the same policy', async (kind) => {
    const written = workloads[kind] ?? {};
    server.apply(written);
    const read = (of: string): object => JSON.parse(server.kubectl(['get', of, '-o', 'json'])) as object;
    const stored = [read('configmap/settings'), read('secret/credentials'), read(`${kind}/web`)];
    // The API server did add something.
    expect(JSON.stringify(stored[2]).length).toBeGreaterThan(JSON.stringify(written).length + 200);
    expect(await policyOf(stored)).toBe(await policyOf([...configuration, written]));
  });

  it('kubectl finds `kubectl sealpod` as its plugin', () => {
    const environment = { ...process.env, PATH: `${join(root, 'cli/bin')}:${process.env['PATH'] ?? ''}` };
    const kubectl = (args: readonly string[], input = '') =>
      execFileSync(join(clusterPrograms ?? '', 'kubectl'), args, { env: environment, input, encoding: 'utf8' });
    expect(kubectl(['plugin', 'list'])).toContain('kubectl-sealpod');
    const service = 'apiVersion: v1\nkind: Service\nmetadata:\n  name: web # kept\n';
    expect(kubectl(['sealpod', 'transform'], service)).toBe(service);
  });

  const helm = join(clusterPrograms ?? '', 'helm');
  it.skipIf(!existsSync(helm))('K-30: Helm 4 takes it as a post-renderer plugin, with arguments', () => {
    const chart = join(server.folder, 'chart');
    mkdirSync(join(chart, 'templates'), { recursive: true });
    writeFileSync(join(chart, 'Chart.yaml'), 'apiVersion: v2\nname: web\nversion: 1.0.0\n');
    const service = 'apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}\n';
    writeFileSync(join(chart, 'templates', 'service.yaml'), service);
    const plugins = join(server.folder, 'plugins');
    mkdirSync(plugins);
    symlinkSync(join(root, 'cli/helm'), join(plugins, 'sealpod'));
    const render = (...args: readonly string[]) =>
      execFileSync(helm, ['template', 'shop', chart, '--post-renderer', 'sealpod', ...args], {
        env: { ...process.env, HELM_PLUGINS: plugins, HOME: server.folder },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    expect(render()).toContain('name: shop');
    expect(() => render('--post-renderer-args', '--no-such-option')).toThrow(/no-such-option/);
    expect(render('--post-renderer-args', '--namespace', '--post-renderer-args', 'shop')).toContain('name: shop');
  });
});
