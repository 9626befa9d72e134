import { EventsV1Api, KubeConfig } from '@kubernetes/client-node';
import { SealpodError } from '@sealpod/protocol/errors';
import type { SandboxStatus, StageRecord } from '@sealpod/protocol/status';
import { detailAnnotation, reportingController, type StartDetail } from './pod-event.ts';

const pageSize = 500;

/** Which events are read: of one namespace, of one pod, or of all. */
export interface EventSelection {
  readonly namespace?: string;
  readonly pod?: string;
}

/** The kubeconfig in a file, else as kubectl finds it. @throws SealpodError USAGE where it cannot be read */
export function loadKubeConfig(file: string | undefined): KubeConfig {
  const kubeConfig = new KubeConfig();
  try {
    if (file === undefined) kubeConfig.loadFromDefault();
    else kubeConfig.loadFromFile(file);
  } catch (cause) {
    throw new SealpodError('USAGE', `the kubeconfig ${file ?? 'of this user'} cannot be read`, { cause });
  }
  return kubeConfig;
}

/**
 * How pods of a cluster started, as their events say, oldest first. What the API server tells is the word of the nodes:
 * a key broker's own decisions are asked of the key broker.
 *
 * @throws SealpodError NOT_FOUND where the API server does not answer
 */
export async function readPodStarts(kubeConfig: KubeConfig, selection: EventSelection): Promise<SandboxStatus[]> {
  const api = kubeConfig.makeApiClient(EventsV1Api);
  const { namespace, pod } = selection;
  const starts = new Map<string, SandboxStatus>();
  const fieldSelector = ['regarding.kind=Pod', ...(pod === undefined ? [] : [`regarding.name=${pod}`])].join(',');
  let page: string | undefined;
  try {
    do {
      const options = { fieldSelector, limit: pageSize, ...(page === undefined ? {} : { _continue: page }) };
      const answer = await (namespace === undefined
        ? api.listEventForAllNamespaces(options)
        : api.listNamespacedEvent({ namespace, ...options }));
      for (const { metadata, regarding, reportingController: by } of answer.items) {
        const detail = by === reportingController ? detailOf(metadata?.annotations?.[detailAnnotation]) : undefined;
        if (detail === undefined) continue;
        const identity = {
          name: regarding?.name ?? '',
          namespace: regarding?.namespace ?? '',
          uid: regarding?.uid ?? '',
        };
        starts.set(detail.sandboxId, withDetail(starts.get(detail.sandboxId), identity, detail));
      }
      page = answer.metadata?._continue || undefined;
    } while (page !== undefined);
  } catch (cause) {
    throw new SealpodError('NOT_FOUND', 'the events of the cluster cannot be read', {
      cause,
      fix: 'check --kubeconfig, and that its user may list events of events.k8s.io',
    });
  }
  return [...starts.values()].sort((one, other) => one.createdAt - other.createdAt);
}

function withDetail(
  before: SandboxStatus | undefined,
  pod: SandboxStatus['pod'],
  { sandboxId, stage, refusal, vm }: StartDetail,
): SandboxStatus {
  const began = stage?.startedAt ?? refusal?.at ?? 0;
  const known: SandboxStatus = before ?? {
    sandboxId,
    pod,
    state: 'starting',
    createdAt: began,
    vm: { name: '', vcpus: 0, memoryMiB: 0 },
    stages: [],
  };
  const stages = stage === undefined ? known.stages : [...known.stages, stage];
  const refusals = [...(known.refusals ?? []), ...(refusal === undefined ? [] : [refusal])].toSorted(
    (one, other) => one.at - other.at,
  );
  const newest = refusals.at(-1);
  const correlationId = newest?.correlationId ?? newestCorrelation(stages);
  return {
    ...known,
    createdAt: Math.min(known.createdAt, began),
    state: stages.some((one) => one.stage === 'starting' && one.code === 'OK') ? 'running' : known.state,
    stages: stages.toSorted((one, other) => one.startedAt - other.startedAt),
    ...(vm === undefined ? {} : { vm }),
    ...(newest === undefined ? {} : { refusals, refusal: newest }),
    ...(correlationId === undefined ? {} : { correlationId }),
  };
}

function newestCorrelation(stages: readonly StageRecord[]): string | undefined {
  return stages
    .filter(({ correlationId }) => correlationId !== undefined)
    .toSorted((one, other) => one.startedAt - other.startedAt)
    .at(-1)?.correlationId;
}

/** Undefined where the annotation is not one of ours: anybody who may create events may write anything into them. */
function detailOf(text: string | undefined): StartDetail | undefined {
  if (text === undefined) return undefined;
  try {
    const detail = JSON.parse(text) as Partial<StartDetail> | null;
    return typeof detail?.sandboxId === 'string' ? (detail as StartDetail) : undefined;
  } catch {
    return undefined;
  }
}
