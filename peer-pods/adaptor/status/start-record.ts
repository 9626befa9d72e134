import { type ReasonCode, reasonCodes } from '@sealpod/protocol/reason-codes';
import type {
  GuestLine,
  PodIdentity,
  RefusalRecord,
  SandboxStatus,
  StageRecord,
  StartStage,
} from '@sealpod/protocol/status';
import type { Instance } from '../../providers/provider.ts';

/** Containers that restart for ever bring ever more stages: those of the VM and the newest others are kept. */
const maxGuestStages = 100;
const maxRefusals = 20;

/** What a record begins with. */
export interface NewStart {
  readonly pod: PodIdentity;
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
}

/** One stage that ended, as metrics and log hear of it. */
export interface EndedStage {
  readonly stage: StartStage;
  readonly part?: string;
  readonly durationMs: number;
  readonly code: ReasonCode | 'OK';
  readonly container?: string;
  readonly correlationId?: string;
}

/** What is kept of a record between two processes. */
export interface StoredStart {
  readonly status: SandboxStatus;
  /** Milliseconds since 1970 at which the guest's kernel began, as far as known. */
  readonly kernelBeganAt?: number;
  /** Bytes of the console that were read. */
  readonly consoleOffset: number;
}

/** The start of one sandbox: its stages as the adaptor sees them and as its guest tells them. */
export class StartRecord {
  #status: SandboxStatus;
  #kernelBeganAt: number | undefined;
  /** Guest stages that are under way, by what they are about. */
  readonly #open = new Map<string, number>();
  readonly #milestones = new Map<string, number>();
  consoleOffset: number;
  consolePath: string | undefined;
  /** End of the console that is not a whole line yet. */
  consoleRest = '';

  constructor(stored: StoredStart) {
    this.#status = stored.status;
    this.#kernelBeganAt = stored.kernelBeganAt;
    this.consoleOffset = stored.consoleOffset;
    for (const [index, stage] of stored.status.stages.entries())
      if (stage.durationMs === undefined) this.#open.set(keyOf(stage), index);
  }

  static begin(sandboxId: string, start: NewStart, now: number): StartRecord {
    const { pod, name, vcpus, memoryMiB } = start;
    const vm = { name, vcpus, memoryMiB };
    return new StartRecord({
      status: { sandboxId, pod, state: 'created', createdAt: now, vm, stages: [] },
      consoleOffset: 0,
    });
  }

  get status(): SandboxStatus {
    return this.#status;
  }

  get stored(): StoredStart {
    return {
      status: this.#status,
      ...(this.#kernelBeganAt === undefined ? {} : { kernelBeganAt: this.#kernelBeganAt }),
      consoleOffset: this.consoleOffset - this.consoleRest.length,
    };
  }

  get isOver(): boolean {
    return this.#status.state === 'failed' || this.#status.state === 'ended';
  }

  /** The VM exists: what it is, and where its guest tells. */
  runsAs(instance: Instance): void {
    const { id, image, consoleLogPath } = instance;
    this.consolePath = consoleLogPath;
    this.#change({ vm: { ...this.#status.vm, instance: id, ...(image === undefined ? {} : { image }) } });
  }

  state(state: SandboxStatus['state'], now: number): void {
    if (this.isOver) return;
    this.#change({ state, ...(state === 'failed' || state === 'ended' ? { endedAt: now } : {}) });
  }

  /** A stage of the adaptor's own begins. */
  begin(stage: StartStage, part: string | undefined, now: number): void {
    this.#begin({ stage, ...(part === undefined ? {} : { part }), startedAt: now });
  }

  /** A stage of the adaptor's own ends. */
  end(stage: StartStage, part: string | undefined, code: ReasonCode | 'OK', now: number): EndedStage | undefined {
    const index = this.#open.get(keyOf({ stage, ...(part === undefined ? {} : { part }) }));
    const begun = index === undefined ? undefined : this.#status.stages[index];
    if (index === undefined || begun === undefined) return undefined;
    return this.#finish(index, { ...begun, durationMs: Math.max(0, now - begun.startedAt), code });
  }

  /** Keeps a refusal; the same one again is counted. */
  refuse(refusal: Omit<RefusalRecord, 'count'>): void {
    const { refusals = [] } = this.#status;
    const isSame = ({ code, message, container }: RefusalRecord): boolean =>
      code === refusal.code && message === refusal.message && container === refusal.container;
    const newest = { ...refusal, count: (refusals.find(isSame)?.count ?? 0) + 1 };
    this.#change({
      refusals: [...refusals.filter((one) => !isSame(one)), newest].slice(-maxRefusals),
      refusal: newest,
      ...(refusal.correlationId === undefined ? {} : { correlationId: refusal.correlationId }),
    });
  }

  /** Takes in one line of the guest's console. Returns the stages that ended by it, and whether it was a refusal. */
  hear(line: GuestLine, now: number): { readonly ended: readonly EndedStage[]; readonly refused: boolean } {
    switch (line.kind) {
      case 'milestone':
        this.#milestones.set(line.name, line.at);
        return { ended: [], refused: false };
      case 'denial': {
        // That nobody may read the output is the default, and asked for all the time.
        if (line.request === 'ReadStreamRequest') return { ended: [], refused: false };
        const message = `${line.request} is blocked by policy: ${line.reason}`;
        this.refuse({ code: 'AGENT_POLICY_DENY', message, at: this.#hostTime(line.at, now) });
        return { ended: [], refused: true };
      }
      case 'stage':
        return this.#hearStage(line, now);
    }
  }

  /**
   * The guest serves: splits `booting` into what it consisted of, and relates the guest's clock to the host's. Without
   * milestones (a guest of another kind, a provider without console) there are no parts.
   */
  splitBooting(now: number): readonly EndedStage[] {
    const booting = this.#status.stages.find(({ stage, part }) => stage === 'booting' && part === undefined);
    const [init, agent, serving] = ['init', 'agent', 'serving'].map((name) => this.#milestones.get(name));
    if (this.#kernelBeganAt !== undefined || booting?.durationMs === undefined || serving === undefined) return [];
    const end = booting.startedAt + booting.durationMs;
    const kernel = Math.max(booting.startedAt, Math.min(now, end - serving));
    this.#kernelBeganAt = kernel;
    const at = (milestone: number | undefined): number | undefined =>
      milestone === undefined ? undefined : Math.min(end, kernel + milestone);
    const [initAt, agentAt] = [at(init), at(agent)];
    const bounds: readonly (readonly [string, number | undefined, number | undefined])[] = [
      ['firmware', booting.startedAt, kernel],
      ['kernel', kernel, initAt],
      ['init', initAt, agentAt],
      ['agent', agentAt, end],
    ];
    return bounds.flatMap(([part, from, to]) => {
      if (from === undefined || to === undefined || to < from) return [];
      const record: StageRecord = { stage: 'booting', part, startedAt: from, durationMs: to - from, code: 'OK' };
      this.#change({ stages: [...this.#status.stages, record] });
      return [endedOf(record)];
    });
  }

  #hearStage(line: Extract<GuestLine, { kind: 'stage' }>, now: number) {
    const { stage, begunAt, durationMs, code, message, correlationId, container, image } = line;
    const record: StageRecord = {
      stage,
      startedAt: this.#hostTime(begunAt, now),
      ...(container === undefined ? {} : { container }),
      ...(image === undefined ? {} : { image }),
      ...(correlationId === undefined ? {} : { correlationId }),
    };
    const index = this.#open.get(keyOf(record));
    if (correlationId !== undefined) this.#change({ correlationId });
    if (durationMs === undefined) {
      if (index === undefined) this.#begin(record);
      return { ended: [], refused: false };
    }
    const begun = index === undefined ? this.#begin(record) : index;
    const ended = this.#finish(begun, { ...record, durationMs, code: code ?? 'INTERNAL' });
    if (ended.code === 'OK') return { ended: [ended], refused: false };
    this.refuse({
      code: ended.code,
      message: message ?? reasonCodes[ended.code][0],
      at: record.startedAt + durationMs,
      stage,
      ...(container === undefined ? {} : { container }),
      ...(correlationId === undefined ? {} : { correlationId }),
    });
    return { ended: [ended], refused: true };
  }

  #begin(record: StageRecord): number {
    this.#change({ stages: [...this.#status.stages, record] });
    this.#dropOldest();
    const index = this.#status.stages.length - 1;
    this.#open.set(keyOf(record), index);
    return index;
  }

  #finish(index: number, record: StageRecord): EndedStage {
    this.#open.delete(keyOf(record));
    this.#change({ stages: this.#status.stages.with(index, record) });
    return endedOf(record);
  }

  #dropOldest(): void {
    const { stages } = this.#status;
    const guest = stages.filter(({ container, stage }) => container !== undefined || stage === 'attesting');
    if (guest.length <= maxGuestStages) return;
    const dropped = stages.indexOf(guest[0] as StageRecord);
    this.#change({ stages: stages.toSpliced(dropped, 1) });
    for (const [key, index] of this.#open) {
      if (index === dropped) this.#open.delete(key);
      else if (index > dropped) this.#open.set(key, index - 1);
    }
  }

  #hostTime(uptimeMs: number, now: number): number {
    return this.#kernelBeganAt === undefined ? now : Math.min(now, this.#kernelBeganAt + uptimeMs);
  }

  #change(change: Partial<SandboxStatus>): void {
    this.#status = { ...this.#status, ...change };
  }
}

function keyOf({ stage, part, container }: Pick<StageRecord, 'stage' | 'part' | 'container'>): string {
  return JSON.stringify([stage, part, container]);
}

function endedOf(record: StageRecord): EndedStage {
  const { stage, part, durationMs = 0, code = 'INTERNAL', container, correlationId } = record;
  return {
    stage,
    durationMs,
    code,
    ...(part === undefined ? {} : { part }),
    ...(container === undefined ? {} : { container }),
    ...(correlationId === undefined ? {} : { correlationId }),
  };
}
