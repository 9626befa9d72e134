import type { Decision } from '@sealpod/kbs/audit';
import { type SandboxStatus, type StageRecord, type StartStage, startStages } from '@sealpod/protocol/status';
import { type OutputFormat, table } from '../terminal/output.ts';

/** What the key broker has on record about a pod's guest. */
export interface BrokerVerdict {
  /** `OK`, the code of the newest refusal, `not attested`, or `unknown` where the broker could not be asked. */
  readonly outcome: string;
  /** Submodule → `ear.status` of the newest attestation. */
  readonly submods?: Readonly<Record<string, string>>;
  /** How many resources were released. */
  readonly released?: number;
  readonly reason?: string;
}

/** One pod as `sealpod status --pods` tells it. */
export interface PodStatus extends SandboxStatus {
  readonly verdict: BrokerVerdict;
}

/** The verdict in the decisions of one correlation id, oldest first. */
export function verdictOf(decisions: readonly Decision[]): BrokerVerdict {
  const last = decisions.findLast(({ kind }) => kind === 'attest' || kind === 'resource');
  const submods = decisions.findLast(({ subject }) => subject.submods !== undefined)?.subject.submods;
  return {
    outcome: last?.outcome ?? 'unknown',
    ...(submods === undefined ? {} : { submods }),
    released: decisions.filter(({ kind, outcome }) => kind === 'resource' && outcome === 'OK').length,
  };
}

/** Prints the pods: what they run in, and what their start cost by stage. */
export function tellPodStatus(format: OutputFormat, pods: readonly PodStatus[]): void {
  if (format === 'json') {
    process.stdout.write(`${JSON.stringify({ pods }, null, 2)}\n`);
    return;
  }
  process.stdout.write(
    table(
      ['pod', 'state', 'machine', 'image', 'verdict', 'correlation id'],
      pods.map((pod) => [
        podNameOf(pod),
        stateOf(pod),
        machineOf(pod),
        imageOf(pod),
        told(pod.verdict),
        pod.correlationId ?? '',
      ]),
    ),
  );
  if (pods.length === 0) return;
  const rows = pods.map((pod) => [
    podNameOf(pod),
    ...startStages.map((stage) => cost(pod.stages, stage)),
    seconds(totalOf(pod)),
  ]);
  process.stdout.write(`\n${table(['pod', ...startStages, 'total'], rows)}`);
  process.stdout.write('attesting lies within the stage that first needs the key broker; sums are of all containers\n');
  for (const { refusal, ...pod } of pods)
    if (refusal !== undefined)
      process.stdout.write(`${podNameOf(pod)}: ${refusal.code}: ${refusal.message.replace(/\s+/g, ' ')}\n`);
}

/** Milliseconds from the request for the VM to the start of the last container; undefined before. */
export function totalOf({ stages, createdAt }: Pick<SandboxStatus, 'stages' | 'createdAt'>): number | undefined {
  const ends = stages.flatMap(({ stage, startedAt, durationMs, code }) =>
    stage === 'starting' && durationMs !== undefined && code === 'OK' ? [startedAt + durationMs] : [],
  );
  return ends.length === 0 ? undefined : Math.max(...ends) - createdAt;
}

function podNameOf({ pod, sandboxId }: Pick<SandboxStatus, 'pod' | 'sandboxId'>): string {
  const name = pod.name === '' ? sandboxId.slice(0, 12) : pod.name;
  return pod.namespace === '' ? name : `${pod.namespace}/${name}`;
}

function stateOf({ state, refusal, stages }: PodStatus): string {
  if (refusal !== undefined && state !== 'running') return `${state}: ${refusal.code}`;
  const current = stages.findLast(({ durationMs }) => durationMs === undefined);
  return current === undefined || state === 'ended' ? state : `${state}: ${current.stage}`;
}

function machineOf({ vm }: SandboxStatus): string {
  return vm.name === '' ? '' : `${vm.name} ${vm.vcpus}x${vm.memoryMiB}`;
}

function imageOf({ vm }: SandboxStatus): string {
  return vm.image === undefined ? '' : `${vm.image.name} ${vm.image.digest.slice(0, 19)}`;
}

function told({ outcome, submods }: BrokerVerdict): string {
  const statuses = Object.entries(submods ?? {}).map(([name, status]) => `${name} ${status}`);
  return statuses.length === 0 ? outcome : `${outcome} (${statuses.join(', ')})`;
}

/** What a stage took in all; with a plus sign while one of it is under way, and whether one failed. */
function cost(stages: readonly StageRecord[], stage: StartStage): string {
  const same = stages.filter((one) => one.stage === stage && (stage === 'network' || one.part === undefined));
  if (same.length === 0) return '';
  const now = Date.now();
  const sum = same.reduce((total, { startedAt, durationMs = now - startedAt }) => total + durationMs, 0);
  if (same.some(({ durationMs }) => durationMs === undefined)) return `${seconds(sum)}+`;
  return same.some(({ code }) => code !== 'OK') ? `${seconds(sum)} failed` : seconds(sum);
}

function seconds(milliseconds: number | undefined): string {
  return milliseconds === undefined ? '' : `${(milliseconds / 1000).toFixed(1)} s`;
}
