import {
  AdmissionregistrationV1Api,
  ApiextensionsV1Api,
  CoreV1Api,
  CustomObjectsApi,
  KubeConfig,
  NodeV1Api,
  VersionApi,
} from '@kubernetes/client-node';
import { SealpodError } from '@sealpod/protocol/errors';
import { releaseName, type Target } from './helm.ts';

/** Access to a cluster. */
export interface Cluster {
  readonly core: CoreV1Api;
  readonly nodes: NodeV1Api;
  readonly admission: AdmissionregistrationV1Api;
  readonly definitions: ApiextensionsV1Api;
  readonly objects: CustomObjectsApi;
  readonly version: VersionApi;
}

/** @throws SealpodError USAGE where there is no such kubeconfig */
export function connectCluster({ kubeconfig }: Pick<Target, 'kubeconfig'>): Cluster {
  const config = new KubeConfig();
  try {
    if (kubeconfig === undefined) config.loadFromDefault();
    else config.loadFromFile(kubeconfig);
    if (config.getCurrentCluster() === null) throw new Error('it names no cluster');
  } catch (cause) {
    throw new SealpodError('USAGE', 'the kubeconfig cannot be used', {
      cause,
      fix: 'name one with --kubeconfig, or set KUBECONFIG',
    });
  }
  return {
    core: config.makeApiClient(CoreV1Api),
    nodes: config.makeApiClient(NodeV1Api),
    admission: config.makeApiClient(AdmissionregistrationV1Api),
    definitions: config.makeApiClient(ApiextensionsV1Api),
    objects: config.makeApiClient(CustomObjectsApi),
    version: config.makeApiClient(VersionApi),
  };
}

/** Makes the namespace of the release, held to `restricted`. One that is there already stays as it is. */
export async function makeNamespace({ core }: Pick<Cluster, 'core'>, name: string): Promise<void> {
  const { items } = await core.listNamespace({ fieldSelector: `metadata.name=${name}` });
  if (items.length > 0) return;
  const levels = ['enforce', 'audit', 'warn'].map((mode) => [`pod-security.kubernetes.io/${mode}`, 'restricted']);
  await core.createNamespace({ body: { metadata: { name, labels: Object.fromEntries(levels) } } });
}

/** A pod of a runtime class of ours. */
export interface RunningPod {
  readonly name: string;
  readonly uid: string;
  readonly node: string;
  readonly restarts: number;
}

/** Sealed pods that run now. */
export async function sealedPods({ core }: Pick<Cluster, 'core'>): Promise<readonly RunningPod[]> {
  const { items } = await core.listPodForAllNamespaces({ fieldSelector: 'status.phase=Running' });
  return items
    .filter(({ spec }) => new RegExp(`^${releaseName}(-|$)`).test(spec?.runtimeClassName ?? ''))
    .map(({ metadata, spec, status }) => ({
      name: `${metadata?.namespace}/${metadata?.name}`,
      uid: metadata?.uid ?? '',
      node: spec?.nodeName ?? '',
      restarts: (status?.containerStatuses ?? []).reduce((sum, { restartCount }) => sum + restartCount, 0),
    }));
}
