import type { V1Pod } from '@kubernetes/client-node';
import type { Cluster } from './cluster.ts';
import { healthPort, messageOf, podsOf } from './node-agents.ts';

/** One line of `sealpod doctor --cluster`. */
export interface ClusterFinding {
  readonly check: string;
  readonly ok: boolean;
  /** What was found. */
  readonly found: string;
  /** What to do; empty where all is well. */
  readonly remedy: string;
}

const oldestMinor = 30;
const group = 'sealpod.io';
const apiVersion = 'v1alpha1';
const kinds = ['sealpodruntimes', 'trustservices', 'podvmimages', 'referencevalues'] as const;
const nodeLabel = 'sealpod.io/runtime';

const good = (check: string, found: string): ClusterFinding => ({ check, ok: true, found, remedy: '' });
const bad = (check: string, found: string, remedy: string): ClusterFinding => ({ check, ok: false, found, remedy });

/** Looks at a cluster with sealpod installed: API server, runtime class, nodes, webhook, resources, key brokers. */
export async function checkCluster(cluster: Cluster): Promise<readonly ClusterFinding[]> {
  const version = await checked('API server', () => apiServer(cluster));
  // Without it nothing else can be asked.
  if (version.some(({ ok }) => !ok) && version[0]?.found.startsWith('no answer')) return version;
  const checks: readonly [string, () => Promise<readonly ClusterFinding[]>][] = [
    ['runtime class', () => runtimeClass(cluster)],
    ['nodes', () => nodes(cluster)],
    ['node agents', () => nodeAgents(cluster)],
    ['webhook', () => webhook(cluster)],
    ['resources', () => resources(cluster)],
    ['key broker', () => keyBrokers(cluster)],
  ];
  const found = await Promise.all(checks.map(([name, check]) => checked(name, check)));
  return [...version, ...found.flat()];
}

async function checked(
  name: string,
  check: () => Promise<readonly ClusterFinding[]>,
): Promise<readonly ClusterFinding[]> {
  try {
    return await check();
  } catch (error) {
    return [bad(name, `no answer: ${messageOf(error)}`, 'check the kubeconfig, and that its user may read this')];
  }
}

async function apiServer({ version }: Cluster): Promise<ClusterFinding[]> {
  const { gitVersion, major, minor } = await version.getCode();
  const recent = Number(major) > 1 || Number.parseInt(minor, 10) >= oldestMinor;
  if (recent) return [good('API server', gitVersion)];
  return [
    bad('API server', gitVersion, `upgrade the cluster to 1.${oldestMinor} or newer: admission policies need it`),
  ];
}

async function runtimeClass({ nodes }: Cluster): Promise<ClusterFinding[]> {
  const { items } = await nodes.listRuntimeClass();
  const ours = items.filter(({ handler }) => handler === 'sealpod').map(({ metadata }) => metadata?.name ?? '');
  if (ours.length > 0) return [good('runtime class', ours.join(', '))];
  return [bad('runtime class', 'none with the handler sealpod', 'install with `sealpod install`')];
}

async function nodes({ core }: Cluster): Promise<ClusterFinding[]> {
  const { items } = await core.listNode();
  const serving = items.filter(({ metadata }) => metadata?.labels?.[nodeLabel] === 'true');
  const found = `${serving.length} of ${items.length} nodes have ${nodeLabel}=true`;
  if (serving.length > 0) return [good('nodes', found)];
  return [bad('nodes', found, 'no sealed pod can be scheduled: see the node agents below')];
}

const isReady = (pod: V1Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;

async function nodeAgents({ core }: Cluster): Promise<ClusterFinding[]> {
  const { items } = await core.listPodForAllNamespaces({ labelSelector: podsOf('node-agent') });
  if (items.length === 0) return [bad('node agents', 'none runs', 'install with `sealpod install`')];
  const waiting = items.filter((pod) => !isReady(pod));
  if (waiting.length === 0) return [good('node agents', `${items.length} ready`)];
  return Promise.all(
    waiting.map(async (pod) => {
      const { name = '', namespace = '' } = pod.metadata ?? {};
      const check = `node agent on ${pod.spec?.nodeName ?? 'no node'}`;
      const state = pod.status?.containerStatuses?.[0]?.state;
      if (state?.running === undefined) {
        const { reason = 'not started', message = '' } = state?.waiting ?? state?.terminated ?? {};
        return bad(check, `${reason} ${message}`.trim(), `kubectl -n ${namespace} describe pod ${name}`);
      }
      const [found = '', ...lines] = (await readiness(core, namespace, name)).split('; ');
      const remedy = lines.find((line) => line.startsWith('to do: '))?.slice('to do: '.length);
      return bad(
        check,
        [found, ...lines.filter((line) => line.startsWith('actual: '))].join('; '),
        remedy ?? `kubectl -n ${namespace} logs ${name}`,
      );
    }),
  );
}

/** What the agent itself says of its node, by way of the API server. */
async function readiness(core: Cluster['core'], namespace: string, name: string): Promise<string> {
  try {
    return await core.connectGetNamespacedPodProxyWithPath({
      namespace,
      name: `${name}:${healthPort}`,
      path: 'readyz',
    });
  } catch (error) {
    return messageOf(error);
  }
}

async function webhook({ admission, core }: Cluster): Promise<ClusterFinding[]> {
  const { items } = await admission.listMutatingWebhookConfiguration();
  const ours = items.find(({ metadata }) => metadata?.labels?.['app.kubernetes.io/part-of'] === 'sealpod');
  if (ours === undefined) return [good('webhook', 'none is configured: sizes of machines are the defaults')];
  const untrusted = (ours.webhooks ?? []).filter(({ clientConfig }) => !clientConfig.caBundle);
  if (untrusted.length > 0)
    return [bad('webhook', 'the API server has no certificate authority for it', 'see the log of the controller')];
  const { items: pods } = await core.listPodForAllNamespaces({ labelSelector: podsOf('webhook') });
  const serving = pods.filter(isReady).length;
  if (serving > 0) return [good('webhook', `${serving} of ${pods.length} ready`)];
  const at = pods[0]?.metadata;
  return [
    bad(
      'webhook',
      `0 of ${pods.length} ready: no sealed pod is admitted`,
      at === undefined ? 'install with `sealpod install`' : `kubectl -n ${at.namespace} describe pod ${at.name}`,
    ),
  ];
}

interface Conditioned {
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly status?: {
    readonly conditions?: readonly { type: string; status: string; reason: string; message: string }[];
  };
}

async function resources({ definitions, objects }: Cluster): Promise<ClusterFinding[]> {
  const { items } = await definitions.listCustomResourceDefinition();
  const defined = kinds.filter((kind) => items.some(({ metadata }) => metadata?.name === `${kind}.${group}`));
  const missing = kinds.filter((kind) => !defined.includes(kind));
  const findings: ClusterFinding[] =
    missing.length === 0
      ? [good('resource definitions', defined.join(', '))]
      : [bad('resource definitions', `missing: ${missing.join(', ')}`, 'install with `sealpod install`')];
  for (const plural of defined) {
    const list = (await objects.listCustomObjectForAllNamespaces({
      group,
      version: apiVersion,
      resourcePlural: plural,
    })) as { items: readonly Conditioned[] };
    for (const { metadata, status } of list.items) {
      const check = `${plural} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`;
      const ready = status?.conditions?.find(({ type }) => type === 'Ready');
      if (ready?.status === 'True') findings.push(good(check, ready.reason));
      else
        findings.push(bad(check, ready?.reason ?? 'no status yet', ready?.message ?? 'see the log of the controller'));
    }
  }
  return findings;
}

async function keyBrokers({ core }: Cluster): Promise<ClusterFinding[]> {
  const { items: services } = await core.listServiceForAllNamespaces({ labelSelector: podsOf('key-broker') });
  if (services.length === 0) return [good('key broker', 'none in this cluster: guests ask the one in their initdata')];
  return Promise.all(
    services.map(async ({ metadata, spec }) => {
      const { name = '', namespace = '' } = metadata ?? {};
      const check = `key broker ${namespace}/${name}`;
      const selector = Object.entries(spec?.selector ?? {})
        .map(([key, value]) => `${key}=${value}`)
        .join(',');
      const { items: pods } = await core.listNamespacedPod({ namespace, labelSelector: selector });
      const serving = pods.filter(isReady).length;
      if (serving > 0) return good(check, `${serving} ready`);
      return bad(
        check,
        `0 of ${pods.length} ready: guests get no key`,
        `kubectl -n ${namespace} describe pod -l ${selector}`,
      );
    }),
  );
}
