import type { KubernetesObject } from '../kubernetes/objects.ts';
import type { Parts } from '../parts.ts';

interface ContainerStatus {
  readonly name: string;
  readonly state?: {
    readonly waiting?: { readonly reason?: string; readonly message?: string };
    readonly terminated?: { readonly exitCode: number; readonly message?: string };
  };
  readonly lastState?: { readonly terminated?: { readonly exitCode: number; readonly message?: string } };
}

/** A pod, as far as its trouble is told. */
export interface Pod extends KubernetesObject {
  readonly spec: { readonly nodeName?: string };
  readonly status?: {
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly containerStatuses?: readonly ContainerStatus[];
  };
}

/** Reasons that a container waits for and will not get over without help. */
const advice: Readonly<Record<string, string>> = {
  ErrImagePull: 'check the name of the image, the registry and the pull secrets',
  ImagePullBackOff: 'check the name of the image, the registry and the pull secrets',
  InvalidImageName: 'correct the name of the image',
  CrashLoopBackOff: 'see the log of the pod',
  CreateContainerConfigError: 'a Secret or ConfigMap is missing',
  CreateContainerError: 'see the events of the pod',
  RunContainerError: 'see the events of the pod',
};

export const isReady = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;

/** What keeps a pod from running, and what to do; undefined where nothing is known to. */
export function troubleOf(pod: Pod): string | undefined {
  const { conditions = [], initContainerStatuses = [], containerStatuses = [] } = pod.status ?? {};
  const unscheduled = conditions.find(({ type, status }) => type === 'PodScheduled' && status === 'False');
  if (unscheduled !== undefined) return `not scheduled: ${unscheduled.message ?? 'no reason given'}`;
  for (const { name, state, lastState } of [...initContainerStatuses, ...containerStatuses]) {
    const { reason = '', message } = state?.waiting ?? {};
    const fix = advice[reason];
    if (fix === undefined) continue;
    const ended = lastState?.terminated;
    const said = ended === undefined ? message : `exit ${ended.exitCode} ${(ended.message ?? '').trim().slice(-300)}`;
    return `container ${name}: ${reason}${said === undefined ? '' : ` (${said.trim()})`}; ${fix}`;
  }
  return undefined;
}

/** The trouble of pods with these labels, one line each, by the node it is on. */
export async function troubles(
  { client }: Pick<Parts, 'client'>,
  namespace: string,
  labels: string,
): Promise<readonly string[]> {
  const { items } = await client.list<Pod>('v1', 'Pod', { namespace, labels });
  return items.flatMap((pod) => {
    const trouble = isReady(pod) ? undefined : troubleOf(pod);
    const where = pod.spec.nodeName === undefined ? pod.metadata.name : `node ${pod.spec.nodeName}`;
    return trouble === undefined ? [] : [`${where}: ${trouble}`];
  });
}
