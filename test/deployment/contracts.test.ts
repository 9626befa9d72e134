import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chartManifests, keyBrokerManifests, standardValues } from '@sealpod/deployment';
import { parseKbsConfig } from '@sealpod/kbs/config';
import type { JsonValue } from '@sealpod/protocol/json';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parseControllerConfig } from '../../peer-pods/controller/config.ts';
import { parseWebhookConfig } from '../../peer-pods/webhook/config.ts';
import { parseNodeAgentConfig } from '../../runtimeclass/node-agent/config.ts';

/* The configuration that manifests hand to the parts, as the parts themselves read it. */

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-contracts-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Manifest = {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Record<string, string>;
};

const data = (objects: readonly unknown[], name: string): Record<string, string> =>
  (objects as readonly Manifest[]).find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === name)?.data ??
  {};

it('the webhook reads its RuntimeClasses', () => {
  const { runtime } = standardValues;
  const cloud = { ...runtime, peer: { ...runtime.peer, provider: { name: 'aws' } } };
  for (const [values, classes] of [
    [standardValues, ['sealpod']],
    [{ ...standardValues, runtime: cloud }, ['sealpod-peer', 'sealpod']],
  ] as const) {
    const text = data(chartManifests(values, 'default'), 'sealpod-webhook')['webhook.json'] ?? '';
    const config = parseWebhookConfig(text, 'webhook.json');
    expect([...config.runtimeClasses.keys()]).toEqual(classes);
    expect(config.runtimeClasses.get('sealpod')).toMatchObject({
      handler: 'sealpod',
      extendedResource: 'sealpod.io/vm',
      removeResources: false,
      limits: { vcpus: 32, memoryMiB: 65_536 },
    });
  }
});

it('the node agent reads where everything is, and which machines to make', () => {
  const { runtime } = standardValues;
  const config = (changed: typeof runtime) => {
    const objects = chartManifests({ ...standardValues, runtime: changed }, 'default');
    return parseNodeAgentConfig(data(objects, 'sealpod-node-agent')['node-agent.json'] ?? '', 'node-agent.json');
  };
  expect(config(runtime)).toMatchObject({
    hostRoot: '/host',
    stateDirectory: '/var/lib/sealpod',
    containerd: { restart: { systemd: 'containerd' } },
    adaptor: { limits: { vcpus: 32, memoryMiB: 65_536, sandboxes: 10 }, provider: { name: 'qemu' } },
    capacity: { resource: 'sealpod.io/vm', count: 10 },
    // What the RuntimeClass selects nodes by.
    nodeLabel: Object.keys(runtime.runtimeClass.nodeSelector)[0],
    health: { address: '0.0.0.0', port: 9440 },
  });
  const digest = `sha256:${'a'.repeat(64)}`;
  expect(config({ ...runtime, machines: { ...runtime.machines, podVmImage: digest } }).adaptor.provider).toEqual({
    name: 'qemu',
    imagesDirectory: '/var/lib/sealpod/pod-vm-images',
    defaultImage: digest,
  });
  const provider = { name: 'module', path: '/opt/cloud.mjs' };
  expect(config({ ...runtime, peer: { ...runtime.peer, provider } }).adaptor.provider).toEqual(provider);
});

it('the controller reads what the chart was given', () => {
  const controller = { ...standardValues.controller, trustNamespaces: ['trust'] };
  const text = data(chartManifests({ ...standardValues, controller }, 'default'), 'sealpod-controller')[
    'controller.json'
  ];
  expect(parseControllerConfig(text ?? '', 'controller.json')).toMatchObject({
    namespaces: { system: 'sealpod-system', nodes: 'sealpod-nodes' },
    trustNamespaces: ['trust'],
    images: standardValues.runtime.images,
    networkPolicies: standardValues.networkPolicies,
    nodes: { nodeSelector: { 'kubernetes.io/os': 'linux' } },
  });
  expect(() => parseControllerConfig('{}', 'x')).toThrow('"namespaces" is missing');
});

it('the key broker reads administrators, roots and the key of the controller', () => {
  const key = '-----BEGIN PUBLIC KEY-----\n';
  const spec = {
    image: '',
    hosts: ['kbs.example'],
    port: 8443,
    serviceType: 'ClusterIP',
    administrators: [
      { name: 'anna', publicKey: key, role: 'owner' },
      { name: 'audit', publicKey: key, role: 'auditor' },
    ],
    referenceValues: true,
    tpmRoots: [{ name: 'local', certificates: '-----BEGIN CERTIFICATE-----', simulated: true }],
    storage: { size: '1Gi', className: '', onDelete: 'Retain' },
    logLevel: 'warn',
  };
  const options = { name: 'main', namespace: 'trust', spec, certificate: 'c', controllerKey: key };
  const files = data(
    keyBrokerManifests(options, {
      images: standardValues.runtime.images,
      networkPolicies: standardValues.networkPolicies,
    }),
    'main-key-broker',
  );
  mkdirSync(join(folder, 'etc'));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, 'etc', name), content);
  const config = parseKbsConfig(JSON.parse(files['kbs.json'] ?? '') as JsonValue, join(folder, 'etc'));
  expect(config.admin.keys.map(({ publicKeyFile, maxRole }) => [publicKeyFile, maxRole])).toEqual([
    [join(folder, 'etc/administrator-anna.pem'), 'owner'],
    [join(folder, 'etc/administrator-audit.pem'), 'auditor'],
    [join(folder, 'etc/controller.pem'), 'operator'],
  ]);
  expect(config.attestationService).toMatchObject({
    type: 'builtin',
    sample: false,
    tpm: { roots: [{ name: 'local' }] },
  });
  expect(config.listen).toEqual({ host: '0.0.0.0', port: 8080 });
});
