import { createHash } from 'node:crypto';
import { reasonCodes } from '@sealpod/protocol/reason-codes';
import type { RefusalRecord, SandboxStatus, StageRecord, StartStage } from '@sealpod/protocol/status';

/** Who publishes, as `reportingController` of the events. */
export const reportingController = 'sealpod.io/node-agent';
/** Carries what the note says, for programs: JSON of {@link StartDetail}. */
export const detailAnnotation = 'sealpod.io/start';
/** What events.k8s.io/v1 takes, in bytes. */
const maxNoteBytes = 1024;
/** The console is read a moment after the guest serves: only then is known what booting consisted of. */
const partsWithinMs = 5000;

/** What one event tells of a start. */
export interface StartDetail {
  readonly sandboxId: string;
  readonly stage?: StageRecord;
  readonly refusal?: RefusalRecord;
  readonly vm?: SandboxStatus['vm'];
}

/** One event that a pod should have. */
export interface PodEvent {
  /** The same for what happens again, so that it is counted and not told anew. */
  readonly key: string;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly action: string;
  readonly note: string;
  /** Milliseconds since 1970 of each time that it happened, oldest first. */
  readonly times: readonly number[];
  /** How often it happened at least. */
  readonly count: number;
  readonly detail: StartDetail;
}

const reasons: Readonly<Record<StartStage, string>> = {
  network: 'VMNetworkReady',
  'creating-vm': 'VMCreated',
  booting: 'VMBooted',
  attesting: 'VMAttested',
  pulling: 'VMImagePulled',
  unsealing: 'VMSecretsUnsealed',
  starting: 'VMContainerStarted',
};
/** The reason of each event that is about a refusal or a failure; its note begins with the reason code. */
export const refusalReason = 'VMRefused';

/** The events that a pod should have by now: one for each stage that ended well, one for each of its refusals. */
export function podEvents(sandbox: SandboxStatus, now: number): readonly PodEvent[] {
  const { sandboxId, vm, stages, refusals = [] } = sandbox;
  const byKey = new Map<string, { readonly events: StageRecord[]; readonly parts: readonly StageRecord[] }>();
  for (const stage of ended(stages, now)) {
    const key = [sandboxId, stage.stage, stage.container ?? ''].join('/');
    const known = byKey.get(key);
    const parts = stages.filter((other) => other.stage === stage.stage && other.part !== undefined);
    if (known) known.events.push(stage);
    else byKey.set(key, { events: [stage], parts });
  }
  const events = [...byKey].map(([key, { events: same, parts }]): PodEvent => {
    const newest = same.at(-1) as StageRecord;
    return {
      key,
      type: 'Normal',
      reason: reasons[newest.stage],
      action: newest.stage,
      note: limited(noteOf(newest, parts, sandbox)),
      times: same.map(({ startedAt, durationMs = 0 }) => startedAt + durationMs),
      count: same.length,
      detail: { sandboxId, stage: newest, ...(newest.stage === 'creating-vm' ? { vm } : {}) },
    };
  });
  const refused = refusals.map((refusal) => refusalEvent(sandboxId, refusal));
  return [...events, ...refused].sort((one, other) => (one.times[0] ?? 0) - (other.times[0] ?? 0));
}

/** Name of the event's object: the same whoever publishes it, so that it is never there twice. */
export function eventName(sandbox: SandboxStatus, event: PodEvent): string {
  const digest = createHash('sha256').update(`${sandbox.pod.uid}/${event.key}`).digest('hex').slice(0, 16);
  return `${sandbox.pod.name.slice(0, 230)}.${digest}`;
}

/** Stages that ended well and are complete: both halves of the network, booting with its parts. */
function ended(stages: readonly StageRecord[], now: number): StageRecord[] {
  return stages.flatMap((stage) => {
    const { durationMs, code, part } = stage;
    if (durationMs === undefined || code !== 'OK') return [];
    if (stage.stage === 'network') {
      if (part !== 'guest') return [];
      const host = stages.find((other) => other.stage === 'network' && other.part === 'host')?.durationMs ?? 0;
      const { part: _, ...whole } = stage;
      return [{ ...whole, durationMs: durationMs + host }];
    }
    if (stage.stage !== 'booting') return [stage];
    if (part !== undefined) return [];
    const split = stages.some((other) => other.stage === 'booting' && other.part !== undefined);
    return split || now - stage.startedAt - durationMs > partsWithinMs ? [stage] : [];
  });
}

function noteOf(stage: StageRecord, parts: readonly StageRecord[], { vm }: SandboxStatus): string {
  const took = `took ${seconds(stage.durationMs)}`;
  switch (stage.stage) {
    case 'network':
      return `setting up the network of the VM ${took}`;
    case 'creating-vm': {
      const image = vm.image === undefined ? '' : `, image ${vm.image.name} ${vm.image.digest}`;
      return `creating VM ${took}: ${vm.name}, ${vm.vcpus} vCPU, ${vm.memoryMiB} MiB${image}`;
    }
    case 'booting': {
      const split = parts.map(({ part, durationMs }) => `${part} ${seconds(durationMs)}`).join(', ');
      return `booting ${took}${split === '' ? '' : ` (${split})`}`;
    }
    case 'attesting':
      return `attesting ${took}${correlation(stage.correlationId)}`;
    case 'pulling':
      return `pulling image ${stage.image ?? ''} in the VM for container ${stage.container ?? ''} ${took}`;
    case 'unsealing':
      return `unsealing secrets of container ${stage.container ?? ''} ${took}`;
    case 'starting':
      return `starting container ${stage.container ?? ''} ${took}`;
  }
}

function refusalEvent(sandboxId: string, refusal: RefusalRecord): PodEvent {
  const { code, message, at, count, container = '', correlationId, stage } = refusal;
  const about = container === '' ? '' : ` (container ${container})`;
  // What to do stands before the message, which may be long.
  const note = `${code}${about}: ${reasonCodes[code][0]}. To do: ${reasonCodes[code][1]}.${correlation(correlationId)} ${message}`;
  const digest = createHash('sha256').update(message).digest('hex').slice(0, 8);
  return {
    key: [sandboxId, 'refusal', code, container, digest].join('/'),
    type: 'Warning',
    reason: refusalReason,
    action: stage ?? 'request',
    note: limited(note),
    times: [at],
    count,
    detail: { sandboxId, refusal },
  };
}

function correlation(id: string | undefined): string {
  return id === undefined ? '' : ` Correlation id ${id} (sealpod explain ${id}).`;
}

function seconds(milliseconds = 0): string {
  return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
}

/** One line, since kubectl shows the first only, of the length that is taken. */
function limited(text: string): string {
  const note = text.replace(/\s+/g, ' ').trim();
  const bytes = Buffer.from(note);
  return bytes.length <= maxNoteBytes ? note : `${bytes.subarray(0, maxNoteBytes - 4).toString('utf8')}…`;
}
