import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProcessIdentity } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Effect, Instance } from '../providers/provider.ts';

/** What the adaptor was asked for: enough to start the sandbox, or to clean it up, after a restart. */
export interface SandboxSpec {
  readonly id: string;
  readonly name: string;
  readonly directory: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** Name of the pod VM image; absent: the provider's default. */
  readonly image?: string | undefined;
  /** The pod's network namespace; absent where the pod has no network. */
  readonly netnsPath?: string | undefined;
  /** SHA-256 of the initdata, which lies beside in the directory; absent where there is none. */
  readonly initdataSha256?: string | undefined;
}

export type Phase = 'created' | 'starting' | 'running' | 'stopping';

export interface EffectRecord {
  readonly effect: Effect;
  readonly completed: boolean;
  readonly identity?: ProcessIdentity | undefined;
}

/** One sandbox as the journal knows it. */
export interface SandboxRecord {
  readonly spec: SandboxSpec;
  readonly phase: Phase;
  readonly instance?: Instance | undefined;
  /** Digest of the guest's key on the agent channel, once it is proved. No other is accepted for this sandbox. */
  readonly guestKey?: string | undefined;
  /** In the order of their intents. */
  readonly effects: readonly EffectRecord[];
}

export type JournalEntry =
  | { readonly type: 'sandbox'; readonly spec: SandboxSpec }
  | {
      readonly type: 'phase';
      readonly sandboxId: string;
      readonly phase: Phase;
      readonly instance?: Instance | undefined;
    }
  | { readonly type: 'guest key'; readonly sandboxId: string; readonly sha256: string }
  | { readonly type: 'intend'; readonly sandboxId: string; readonly effect: Effect }
  | {
      readonly type: 'complete';
      readonly sandboxId: string;
      readonly effect: Effect;
      readonly identity?: ProcessIdentity | undefined;
    }
  | { readonly type: 'forget'; readonly sandboxId: string };

/** After so many entries the file is written anew with what still holds. */
const compactAfter = 10_000;

/**
 * An append-only file of JSON lines. An entry is on the disk before its promise resolves; entries that come together
 * share one synchronisation. A last line without its end was never acknowledged and is dropped.
 */
export class Journal {
  readonly #path: string;
  readonly #records: Records;
  #file: FileHandle;
  #lines = 0;
  /** A write failed and may have left half a line. */
  #torn = false;
  #waiting: string[] = [];
  #flushing: Promise<void> = Promise.resolve();

  private constructor(path: string, records: Records, file: FileHandle) {
    this.#path = path;
    this.#records = records;
    this.#file = file;
  }

  /** Opens or creates the journal. Throws STORAGE, also where the file is damaged. */
  static async open(directory: string): Promise<Journal> {
    const path = join(directory, 'journal.jsonl');
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return '';
        throw error;
      });
      const records: Records = new Map();
      const lines = text.split('\n');
      lines.pop();
      for (const [index, line] of lines.entries()) apply(records, parseEntry(line, `${path}:${index + 1}`));
      const journal = new Journal(path, records, await open(path, 'a', 0o600));
      await journal.#compact();
      return journal;
    } catch (cause) {
      if (cause instanceof SealpodError) throw cause;
      throw new SealpodError('STORAGE', `the journal ${path} cannot be opened`, { cause });
    }
  }

  get records(): ReadonlyMap<string, SandboxRecord> {
    return this.#records;
  }

  /** Resolves when the entry is durable. Throws STORAGE; then nothing it announces may be done. */
  append(entry: JournalEntry): Promise<void> {
    apply(this.#records, entry);
    this.#waiting.push(`${JSON.stringify(entry)}\n`);
    const flushed = this.#flushing.then(() => this.#flush());
    // A failure is told to each of its own callers; the next append tries again.
    this.#flushing = flushed.catch(() => undefined);
    return flushed;
  }

  async close(): Promise<void> {
    await this.#flushing;
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    const lines = this.#waiting;
    this.#waiting = [];
    try {
      if (this.#torn || this.#lines + lines.length > compactAfter) {
        await this.#compact();
        return;
      }
      this.#torn = true;
      await this.#file.writeFile(lines.join(''));
      await this.#file.datasync();
      this.#torn = false;
      this.#lines += lines.length;
    } catch (cause) {
      throw new SealpodError('STORAGE', `the journal ${this.#path} cannot be written`, { cause });
    }
  }

  /** Writes what holds to a new file and puts it in the place of the old one. */
  async #compact(): Promise<void> {
    const entries = [...this.#records.values()].flatMap(entriesOf);
    const temporary = `${this.#path}.new`;
    const file = await open(temporary, 'w', 0o600);
    await file.writeFile(entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
    await file.sync();
    await rename(temporary, this.#path);
    const directory = await open(join(this.#path, '..'));
    await directory.sync();
    await directory.close();
    await this.#file.close();
    this.#file = file;
    this.#torn = false;
    this.#lines = entries.length;
  }
}

type Records = Map<string, SandboxRecord>;

function apply(records: Records, entry: JournalEntry): void {
  if (entry.type === 'sandbox') {
    records.set(entry.spec.id, { spec: entry.spec, phase: 'created', effects: [] });
    return;
  }
  const record = records.get(entry.sandboxId);
  if (!record) throw new SealpodError('STORAGE', `the journal has no sandbox ${entry.sandboxId}`);
  switch (entry.type) {
    case 'forget':
      records.delete(entry.sandboxId);
      break;
    case 'phase':
      records.set(entry.sandboxId, { ...record, phase: entry.phase, instance: entry.instance ?? record.instance });
      break;
    case 'guest key':
      records.set(entry.sandboxId, { ...record, guestKey: entry.sha256 });
      break;
    case 'intend':
      records.set(entry.sandboxId, withEffect(record, { effect: entry.effect, completed: false }));
      break;
    case 'complete':
      records.set(
        entry.sandboxId,
        withEffect(record, { effect: entry.effect, completed: true, identity: entry.identity }),
      );
  }
}

function withEffect(record: SandboxRecord, effect: EffectRecord): SandboxRecord {
  const key = JSON.stringify(effect.effect);
  const effects = [...record.effects];
  const index = effects.findIndex((known) => JSON.stringify(known.effect) === key);
  if (index < 0) effects.push(effect);
  else effects[index] = effect;
  return { ...record, effects };
}

function entriesOf({ spec, phase, instance, effects, guestKey }: SandboxRecord): JournalEntry[] {
  const sandboxId = spec.id;
  return [
    { type: 'sandbox', spec },
    ...(guestKey === undefined ? [] : [{ type: 'guest key', sandboxId, sha256: guestKey } as const]),
    ...effects.map(
      ({ effect, completed, identity }): JournalEntry =>
        completed ? { type: 'complete', sandboxId, effect, identity } : { type: 'intend', sandboxId, effect },
    ),
    { type: 'phase', sandboxId, phase, instance },
  ];
}

/** A line is this process's own writing; what does not read as such means that the file was damaged. */
function parseEntry(line: string, where: string): JournalEntry {
  const damaged = (cause?: unknown) =>
    new SealpodError('STORAGE', `the journal is damaged at ${where}`, {
      fix: 'look for pod VMs by hand (ps, ip netns), then move the journal away',
      ...(cause === undefined ? {} : { cause }),
    });
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch (cause) {
    throw damaged(cause);
  }
  const types = ['sandbox', 'phase', 'guest key', 'intend', 'complete', 'forget'];
  if (typeof entry !== 'object' || entry === null || !('type' in entry) || !types.includes(String(entry.type)))
    throw damaged();
  return entry as JournalEntry;
}
