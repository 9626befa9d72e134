import { generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { customResourceDefinition, resourceDefinitions } from '@sealpod/deployment';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { root } from '../e2e/environment.ts';
import { programs } from './programs.ts';
import { TestControlPlane } from './test-control-plane.ts';

/*
 * Chart and controller on a real API server with its real controllers: what is refused, made, repaired and removed, and what
 * each ServiceAccount may do. No pod runs: a stand-in says that they are ready.
 */

const obstacle =
  process.env['SEALPOD_LONG_TESTS'] !== '1'
    ? 'starts a control plane for some minutes: set SEALPOD_LONG_TESTS=1'
    : programs === undefined
      ? 'Kubernetes is not built, run `sealpod cluster up` once'
      : undefined;

const chart = join(root, 'runtimeclass/chart');
const apiVersion = 'sealpod.io/v1alpha1';
const digest = `sha256:${'a'.repeat(64)}`;
const publicKey = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString();

const runtime = (spec: object = {}, name = 'sealpod') => ({
  apiVersion,
  kind: 'SealpodRuntime',
  metadata: { name },
  spec,
});
const trustService = (spec: object = {}) => ({
  apiVersion,
  kind: 'TrustService',
  metadata: { name: 'main', namespace: 'sealpod-system' },
  spec: { administrators: [{ name: 'owner', publicKey }], ...spec },
});
const podVmImage = (spec: object = {}) => ({
  apiVersion,
  kind: 'PodVmImage',
  metadata: { name: 'image' },
  spec: { digest, source: `registry.test/pod-vm@${digest}`, ...spec },
});
const referenceValues = (spec: object = {}) => ({
  apiVersion,
  kind: 'ReferenceValues',
  metadata: { name: 'values', namespace: 'sealpod-system' },
  spec: { trustService: { name: 'main' }, values: [{ id: 'tpm_kernel', values: ['aa'] }], ...spec },
});

interface Conditioned {
  readonly status?: {
    readonly conditions?: readonly { type: string; status: string; reason: string; message: string }[];
  };
}

describe.skipIf(obstacle !== undefined)(
  `chart and controller${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`,
  () => {
    const plane = new TestControlPlane();
    let empty: string[] = [];

    const told = async (...what: readonly string[]): Promise<string> => {
      const { status } = await plane.get<Conditioned>(...what);
      const held = status?.conditions?.find((condition) => condition.status === 'True');
      return `${held?.type} ${held?.reason}: ${held?.message}`;
    };
    const eventually = (check: () => Promise<void>, timeout = 60_000) => vi.waitFor(check, { timeout, interval: 500 });
    const gone = (...what: readonly string[]) =>
      eventually(async () => expect((await plane.kubectl('get', ...what)).stderr).toContain('not found'));

    beforeAll(async () => {
      await plane.start();
      for (const definition of resourceDefinitions) await plane.apply(customResourceDefinition(definition));
      await plane.ok('wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all');
      empty = await plane.everything();
    });
    afterAll(() => plane.stop());

    it('the API server accepts the schemas, fills in defaults and refuses what does not fit, by name', async () => {
      await plane.apply(runtime());
      const stored = await plane.get<{ spec: { nodeAgent: { healthPort: number } } }>('sealpodruntime', 'sealpod');
      expect(stored.spec.nodeAgent.healthPort).toBe(9440);
      await plane.ok('delete', 'sealpodruntime', 'sealpod');
      await plane.ok('create', 'namespace', 'sealpod-system');
      const owner = { name: 'owner', publicKey };
      for (const [object, message] of [
        [runtime({}, 'another'), 'there is one SealpodRuntime, and its name is sealpod'],
        [runtime({ nodeAgent: { logLevel: 'loud' } }), 'supported values: "debug", "info", "warn", "error"'],
        [runtime({ machines: { resourceName: 'vm' } }), 'spec.machines.resourceName'],
        [runtime({ misspelt: true }), 'unknown field "spec.misspelt"'],
        [trustService({ administrators: [] }), 'spec.administrators'],
        [trustService({ administrators: [{ ...owner, role: 'auditor' }] }), 'name at least one owner'],
        [trustService({ administrators: [owner, owner] }), 'Duplicate value'],
        [trustService({ administrators: [{ ...owner, publicKey: 'secret' }] }), 'publicKey'],
        [podVmImage({ digest: 'latest' }), 'spec.digest'],
        [podVmImage({ source: 'registry.test/pod-vm:1' }), 'spec.source'],
        [referenceValues({ values: [] }), 'name values, or a PodVmImage'],
        [referenceValues({ expiresAt: 'soon' }), 'spec.expiresAt'],
      ] as const) {
        expect(await plane.tryApply(object, '--dry-run=server')).toContain(message);
      }
      for (const object of [trustService(), podVmImage(), referenceValues()]) {
        expect(await plane.tryApply(object, '--dry-run=server')).toBe('');
      }
      await plane.ok('delete', 'namespace', 'sealpod-system');
    });

    it('K-28: a SealpodRuntime becomes the objects of the chart', async () => {
      await plane.helm('install', 'sealpod', chart, '--set', 'runtimeManagedBy=Resource');
      expect((await plane.kubectl('get', 'daemonset', '-n', 'sealpod-nodes', '-o', 'name')).stdout).toBe('');
      await plane.startController();
      await plane.apply(runtime());
      await eventually(async () =>
        expect(await told('sealpodruntime', 'sealpod')).toBe('Ready Ready: 1 nodes run pods of the RuntimeClass'),
      );
      const { status } = await plane.get<{ status: { objects: { kind: string; name: string }[] } }>(
        'sealpodruntime',
        'sealpod',
      );
      const made = status.objects.map(({ kind, name }) => `${kind} ${name}`);
      expect(made).toContain('RuntimeClass sealpod');
      expect(made).toContain('ValidatingAdmissionPolicy sealpod-image-digests');
      const columns = await plane.ok('get', 'sealpodruntime', 'sealpod');
      expect(columns).toMatch(/NAME\s+NODES\s+DESIRED\s+READY\s+REASON\s+AGE\nsealpod\s+1\s+1\s+True\s+Ready/);
    });

    it('the webhook has a certificate that the API server trusts', async () => {
      const secret = await plane.get<{ data: Record<string, string> }>(
        'secret',
        'sealpod-webhook-tls',
        '-n',
        'sealpod-system',
      );
      for (const kind of ['mutatingwebhookconfiguration', 'validatingwebhookconfiguration']) {
        const { webhooks } = await plane.get<{ webhooks: { clientConfig: { caBundle: string } }[] }>(kind, 'sealpod');
        expect(webhooks[0]?.clientConfig.caBundle).toBe(secret.data['ca.crt']);
      }
      // It is not there, and fails closed for confidential pods alone.
      const pod = (runtimeClassName?: string) => ({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'p' },
        spec: {
          ...(runtimeClassName && { runtimeClassName }),
          containers: [{ name: 'c', image: `registry.test/a@${digest}` }],
        },
      });
      await eventually(async () =>
        expect(await plane.tryApply(pod('sealpod'), '--dry-run=server')).toContain(
          'failed calling webhook "mutate.sealpod.io"',
        ),
      );
      expect(await plane.tryApply(pod(), '--dry-run=server')).toBe('');
    });

    it('a change of options rolls the node agent, and what is not specified any more goes', async () => {
      await plane.apply(runtime({ images: { node: 'registry.test/node:2' }, webhook: { enabled: false } }));
      await eventually(async () => {
        const set = await plane.get<{ spec: { template: { spec: { containers: { image: string }[] } } } }>(
          ...['daemonset', 'sealpod-node-agent', '-n', 'sealpod-nodes'],
        );
        expect(set.spec.template.spec.containers[0]?.image).toBe('registry.test/node:2');
      });
      await gone('deployment', 'sealpod-webhook', '-n', 'sealpod-system');
      await gone('mutatingwebhookconfiguration', 'sealpod');
      await eventually(async () => expect(await told('sealpodruntime', 'sealpod')).toContain('Ready Ready'));
    });

    it('K-28: a DaemonSet that is deleted or changed is back within 30 seconds', async () => {
      const names = ['daemonset', 'sealpod-node-agent', '-n', 'sealpod-nodes'] as const;
      const uid = async () => (await plane.get<{ metadata: { uid: string } }>(...names)).metadata.uid;
      const before = await uid();
      const started = performance.now();
      await plane.ok('delete', ...names, '--wait=false');
      await eventually(async () => expect(await uid()).not.toBe(before), 30_000);
      expect(performance.now() - started).toBeLessThan(30_000);
      const changed = '{"spec":{"template":{"spec":{"hostPID":false}}}}';
      await plane.ok('patch', ...names, '--type=merge', '-p', changed);
      await eventually(async () => {
        const set = await plane.get<{ spec: { template: { spec: { hostPID?: boolean } } } }>(...names);
        expect(set.spec.template.spec.hostPID).toBe(true);
      }, 30_000);
      await plane.ok('delete', 'runtimeclass', 'sealpod');
      await eventually(async () => void (await plane.ok('get', 'runtimeclass', 'sealpod')), 30_000);
    });

    it('a TrustService becomes a key broker, and leaves its volume alone when it goes', async () => {
      // Nobody provides volumes here.
      await plane.apply({
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        metadata: { name: 'kept' },
        spec: { capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'], hostPath: { path: '/nowhere' } },
      });
      await plane.apply(trustService({ referenceValues: true }));
      await eventually(async () =>
        expect(await told('trustservice', 'main', '-n', 'sealpod-system')).toBe('Ready Ready: the key broker answers'),
      );
      const { status } = await plane.get<{ status: { url: string; certificate: string } }>(
        'trustservice',
        'main',
        '-n',
        'sealpod-system',
      );
      expect(status.url).toBe('https://main-key-broker.sealpod-system.svc:8080');
      expect(status.certificate).toContain('BEGIN CERTIFICATE');
      await plane.apply(referenceValues());
      const values = ['referencevalues', 'values', '-n', 'sealpod-system'] as const;
      await eventually(async () =>
        expect(await told(...values)).toContain('Degraded KeyBrokerUnreachable: KBS_UNREACHABLE'),
      );
      await plane.ok('delete', ...values, '--timeout=60s');
      await plane.ok('delete', 'trustservice', 'main', '-n', 'sealpod-system');
      for (const what of [
        'statefulset/main-key-broker',
        'service/main-key-broker',
        'secret/main-key-broker-tls',
        'secret/main-controller-key',
      ]) {
        await gone(what, '-n', 'sealpod-system');
      }
      await plane.ok('delete', 'pvc', 'main-key-broker', '-n', 'sealpod-system', '--timeout=60s');
      await plane.ok('delete', 'pv', 'kept', '--timeout=60s');
    });

    it('a PodVmImage is placed on every node, told by node, and taken off again', async () => {
      await plane.apply(podVmImage());
      await eventually(async () =>
        expect(await told('podvmimage', 'image')).toBe('Ready Ready: 1 nodes have the image'),
      );
      const { status } = await plane.get<{ status: { nodes: object[] } }>('podvmimage', 'image');
      expect(status.nodes).toEqual([{ name: 'worker', ready: true }]);
      expect(await plane.tryApply(podVmImage({ digest: `sha256:${'b'.repeat(64)}` }))).toContain('cannot be changed');
      await plane.ok('delete', 'podvmimage', 'image', '--timeout=90s');
      await gone('daemonset', 'pod-vm-image-image', '-n', 'sealpod-nodes');
    });

    it('S-22: what the API server lets each ServiceAccount do', async () => {
      const may = async (account: string, ...what: readonly string[]): Promise<boolean> =>
        (await plane.kubectl('auth', 'can-i', ...what, '--as', `system:serviceaccount:${account}`)).stdout.trim() ===
        'yes';
      const controller = 'sealpod-system:sealpod-controller';
      const agent = 'sealpod-nodes:sealpod-node-agent';
      const webhook = 'sealpod-system:sealpod-webhook';
      const hook = 'sealpod-system:sealpod-uninstall';
      for (const [account, expected, ...what] of [
        [controller, true, 'patch', 'daemonsets.apps', '-n', 'sealpod-nodes'],
        [controller, true, 'get', 'secrets', '-n', 'sealpod-system'],
        [controller, false, 'list', 'secrets', '-n', 'sealpod-system'],
        [controller, false, 'get', 'secrets', '-n', 'default'],
        [controller, false, 'list', 'secrets', '-A'],
        [controller, false, 'create', 'clusterroles'],
        [controller, false, 'create', 'pods', '-n', 'sealpod-nodes'],
        [controller, false, 'create', 'daemonsets.apps', '-n', 'kube-system'],
        [controller, false, 'patch', 'validatingadmissionpolicies', '--subresource='],
        [agent, true, 'patch', 'nodes'],
        [agent, true, 'patch', 'nodes', '--subresource=status'],
        [agent, false, 'get', 'secrets', '-n', 'sealpod-nodes'],
        [agent, false, 'list', 'pods', '-A'],
        [agent, false, 'delete', 'nodes'],
        [webhook, false, 'get', 'pods', '-n', 'sealpod-system'],
        [webhook, false, 'get', 'secrets', '-n', 'sealpod-system'],
      ] as const) {
        expect(await may(account, ...what), `${account} ${what.join(' ')}`).toBe(expected);
      }
      expect(await may(hook, 'patch', 'daemonsets.apps/sealpod-node-agent', '-n', 'sealpod-nodes')).toBe(false);
    });

    it('a node agent changes labels of its own node, and of no other', async () => {
      await plane.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'other', labels: { pool: 'x' } } });
      const pods = await plane.get<{ items: { metadata: { name: string } }[] }>(
        ...['pods', '-n', 'sealpod-nodes', '-l', 'app.kubernetes.io/component=node-agent'],
      );
      const pod = pods.items[0]?.metadata.name ?? '';
      const kubeconfig = await plane.kubeconfigOf(
        'sealpod-nodes',
        'sealpod-node-agent',
        '--bound-object-kind=Pod',
        `--bound-object-name=${pod}`,
      );
      const label = (node: string, change: string) =>
        plane.kubectl('--kubeconfig', kubeconfig, 'label', 'node', node, '--overwrite', change);
      expect((await label('worker', 'sealpod.io/runtime=true')).code).toBe(0);
      expect((await label('other', 'sealpod.io/runtime=true')).stderr).toContain(
        'the node agent may change its own node only',
      );
      expect((await label('worker', 'kubernetes.io/os=plan9')).stderr).toContain('labels of sealpod only');
      expect((await label('worker', 'kubernetes.io/os-')).stderr).toContain('labels of sealpod only');
      expect((await label('worker', 'sealpod.io/runtime-')).code).toBe(0);
      await plane.ok('delete', 'node', 'other');
    });

    it('K-28: deleting the SealpodRuntime takes everything off the nodes and out of the cluster', async () => {
      await plane.ok('delete', 'sealpodruntime', 'sealpod', '--timeout=120s');
      for (const what of ['daemonset/sealpod-node-agent', 'configmap/sealpod-node-agent'])
        await gone(what, '-n', 'sealpod-nodes');
      await gone('runtimeclass', 'sealpod');
      await gone('validatingadmissionpolicy', 'sealpod-image-digests');
      await plane.stopController();
      await plane.helm('uninstall', 'sealpod', '--wait', '--timeout', '3m');
      await eventually(async () => expect(await plane.everything()).toEqual(empty), 120_000);
    });

    it('helm install and helm uninstall of the chart alone leave nothing, and the hook has taken it off the nodes first', async () => {
      await plane.helm('install', 'sealpod', chart);
      const set = () =>
        plane.get<{ status: { numberReady?: number } }>('daemonset', 'sealpod-node-agent', '-n', 'sealpod-nodes');
      await eventually(async () => expect((await set()).status.numberReady).toBe(1));
      await delay(1000);
      plane.controllerLog.length = 0;
      await plane.helm('uninstall', 'sealpod', '--wait', '--timeout', '3m');
      expect(plane.controllerLog.join('')).toContain('removed from 1 nodes');
      await eventually(async () => expect(await plane.everything()).toEqual(empty), 120_000);
    });
  },
);
