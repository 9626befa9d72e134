import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { asSealpodError, type SealpodError } from '@sealpod/protocol/errors';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { parseGuestLine, type SandboxStatus, type StartStage } from '@sealpod/protocol/status';
import { readFrom } from '../../providers/machine-file.ts';
import type { Instance } from '../../providers/provider.ts';
import type { Log } from '../log.ts';
import { type EndedStage, type NewStart, StartRecord, type StoredStart } from './start-record.ts';

/** How long a sandbox that is gone is still told of, and of how many. */
const keptMs = 15 * 60_000;
const keptRecords = 200;
const betweenReadsMs = 1000;
/** Of one console, in one turn. */
const consoleBytesAtOnce = 1 << 20;
/** A longer line is none of the guest agent's. */
const longestLine = 8192;
const maxMessageCharacters = 1024;

/** Who hears of each end of a stage and of each refusal. */
export interface StartListener {
  stageEnded(stage: EndedStage): void;
  refused(code: ReasonCode): void;
}

/** What the adaptor tells of one sandbox while it starts and ends it. */
export interface StartTeller {
  /** Runs one stage; its duration and the code of its failure are kept. */
  during<Result>(stage: StartStage, part: string | undefined, work: () => Promise<Result>): Promise<Result>;
  runsAs(instance: Instance): void;
  state(state: SandboxStatus['state']): void;
  /** The start failed; the console is read once more, since it goes next. */
  failed(error: SealpodError): Promise<void>;
  /** The VM is about to be removed: last look at its console. */
  ending(): Promise<void>;
}

/**
 * How each pod VM of this adaptor started, for its status. It is told, and never decided by: what is lost of it when the
 * adaptor is killed (at most the last write) costs nobody a machine, so it is not part of the journal of effects.
 */
export class StartRecords {
  readonly #file: string;
  readonly #log: Log;
  readonly #records: Map<string, StartRecord>;
  readonly #listener: StartListener;
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> = Promise.resolve();
  #dirty = false;
  #writing: Promise<void> = Promise.resolve();

  private constructor(
    file: string,
    records: Map<string, StartRecord>,
    options: { readonly log: Log; readonly listener: StartListener; readonly now: () => number },
  ) {
    this.#file = file;
    this.#records = records;
    this.#log = options.log;
    this.#listener = options.listener;
    this.#now = options.now;
  }

  /** Takes up what an earlier process kept. A file that cannot be read costs the history and nothing else; the log says so. */
  static async open(
    stateDirectory: string,
    options: { readonly log: Log; readonly listener: StartListener; readonly now?: () => number },
  ): Promise<StartRecords> {
    const file = join(stateDirectory, 'starts.json');
    const records = new Map<string, StartRecord>();
    try {
      for (const stored of JSON.parse(await readFile(file, 'utf8')) as StoredStart[])
        records.set(stored.status.sandboxId, new StartRecord(stored));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        options.log.warn({ file, reason: String(error) }, 'the records of earlier starts cannot be read');
    }
    return new StartRecords(file, records, { now: Date.now, ...options });
  }

  /** Begins to follow the consoles of the guests. */
  follow(): void {
    const turn = async (): Promise<void> => {
      await this.refresh();
      this.#timer = setTimeout(() => void turn(), betweenReadsMs).unref();
    };
    this.#timer ??= setTimeout(() => void turn(), betweenReadsMs).unref();
  }

  /** What the journal no longer knows is gone, whatever the last word of it was. */
  endOthers(known: ReadonlySet<string>): void {
    for (const [id, record] of this.#records) if (!known.has(id)) record.state('ended', this.#now());
    this.#changed();
  }

  /** A sandbox was asked for. */
  begin(sandboxId: string, start: NewStart): void {
    if (this.#records.get(sandboxId)?.isOver === false) return;
    this.#records.delete(sandboxId);
    this.#records.set(sandboxId, StartRecord.begin(sandboxId, start, this.#now()));
    this.#changed();
  }

  /** A sandbox was asked for, and refused at once. Says nothing of one that exists under the same id. */
  refuse(sandboxId: string, start: NewStart, error: SealpodError): void {
    if (this.#records.get(sandboxId)?.isOver === false) return;
    this.begin(sandboxId, start);
    this.#fail(sandboxId, error);
  }

  /** Tells of one sandbox. Where none was begun, e.g. by an adaptor of an earlier release, nothing is kept. */
  of(sandboxId: string): StartTeller {
    const record = (): StartRecord | undefined => this.#records.get(sandboxId);
    return {
      during: async (stage, part, work) => {
        record()?.begin(stage, part, this.#now());
        this.#changed();
        try {
          const result = await work();
          this.#end(sandboxId, stage, part, 'OK');
          return result;
        } catch (error) {
          this.#end(sandboxId, stage, part, asSealpodError(error, 'HYPERVISOR').code);
          throw error;
        }
      },
      runsAs: (instance) => {
        record()?.runsAs(instance);
        this.#changed();
      },
      state: (state) => {
        record()?.state(state, this.#now());
        this.#changed();
      },
      failed: async (error) => {
        await this.refresh();
        this.#fail(sandboxId, error);
      },
      ending: () => this.refresh(),
    };
  }

  /** All sandboxes, in the order of their beginning. Read the consoles first with `refresh`. */
  list(): readonly SandboxStatus[] {
    return [...this.#records.values()].map(({ status }) => status);
  }

  /** Reads what the guests have written to their consoles since. */
  refresh(): Promise<void> {
    const next = this.#reading.then(async () => {
      for (const record of this.#records.values()) {
        if (record.isOver || record.consolePath === undefined) continue;
        await this.#read(record, record.consolePath);
      }
      this.#forgetOld();
    });
    this.#reading = next;
    return next;
  }

  /** Stops following; what is known is on disk then. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#reading;
    await this.#writing;
  }

  #end(sandboxId: string, stage: StartStage, part: string | undefined, code: ReasonCode | 'OK'): void {
    const ended = this.#records.get(sandboxId)?.end(stage, part, code, this.#now());
    if (ended) this.#tell(sandboxId, ended);
    this.#changed();
  }

  #fail(sandboxId: string, error: SealpodError): void {
    const record = this.#records.get(sandboxId);
    if (record === undefined || record.isOver) return;
    const failing = record.status.stages.findLast(({ code }) => code !== undefined && code !== 'OK');
    const { correlationId } = error.detail;
    record.refuse({
      code: error.code,
      message: error.message.slice(0, maxMessageCharacters),
      at: this.#now(),
      ...(failing === undefined ? {} : { stage: failing.stage }),
      ...(correlationId === undefined ? {} : { correlationId }),
    });
    record.state('failed', this.#now());
    this.#listener.refused(error.code);
    this.#changed();
  }

  async #read(record: StartRecord, path: string): Promise<void> {
    let bytes: Buffer;
    try {
      bytes = await readFrom(path, record.consoleOffset, consoleBytesAtOnce);
    } catch (error) {
      // Not written yet, or gone with its machine.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#log.warn({ sandbox: record.status.sandboxId, reason: String(error) }, 'a console cannot be read');
      return;
    }
    const { sandboxId } = record.status;
    record.consoleOffset += bytes.length;
    const lines = (record.consoleRest + bytes.toString('latin1')).split('\n');
    record.consoleRest = (lines.pop() ?? '').slice(-longestLine);
    for (const text of lines) {
      const line = text.length > longestLine ? undefined : parseGuestLine(text);
      if (line === undefined) continue;
      for (const part of record.splitBooting(this.#now())) this.#tell(sandboxId, part);
      const { ended, refused } = record.hear(line, this.#now());
      for (const stage of ended) this.#tell(sandboxId, stage);
      if (refused) this.#tellRefusal(record.status);
    }
    for (const part of record.splitBooting(this.#now())) this.#tell(sandboxId, part);
    if (bytes.length > 0) this.#changed();
  }

  #tell(sandbox: string, ended: EndedStage): void {
    this.#listener.stageEnded(ended);
    const { durationMs: ms, part, ...stage } = ended;
    // `part` of a line is the part of sealpod that wrote it.
    this.#log.info({ sandbox, ...stage, ...(part === undefined ? {} : { stagePart: part }), ms }, 'stage');
  }

  #tellRefusal({ sandboxId: sandbox, refusal }: SandboxStatus): void {
    if (refusal === undefined) return;
    this.#listener.refused(refusal.code);
    this.#log.warn({ sandbox, ...refusal }, 'the guest refused');
  }

  #forgetOld(): void {
    const over = [...this.#records].filter(([, record]) => record.isOver);
    const oldest = this.#now() - keptMs;
    for (const [index, [id, { status }]] of over.entries()) {
      if ((status.endedAt ?? 0) >= oldest && over.length - index <= keptRecords) continue;
      this.#records.delete(id);
      this.#changed();
    }
  }

  #changed(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    this.#writing = this.#writing.then(async () => {
      this.#dirty = false;
      const stored = [...this.#records.values()].map((record) => record.stored);
      try {
        await writeFile(`${this.#file}.new`, JSON.stringify(stored), { mode: 0o600 });
        await rename(`${this.#file}.new`, this.#file);
      } catch (error) {
        this.#log.warn({ file: this.#file, reason: String(error) }, 'the records of starts cannot be written');
      }
    });
  }
}
