import { readFile } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import type { WorkReply, WorkRequest } from './messages.ts';
import { maxNestingDepth, nestingDepth } from './nesting.ts';
import { WorkerThread } from './worker-thread.ts';

/** 128 MiB, in pages of 64 KiB. */
const defaultMemoryPages = 2048;
const defaultTimeoutMs = 2000;
const defaultMaxPolicyBytes = 16 * 1024 * 1024;
/** Kata's raised limits; the engine's own default of 1024 columns refuses generated policies. */
const maxPolicyLines = 200_000;
const maxPolicyColumns = 64 * 1024;
const maxDocumentBytes = 16 * 1024 * 1024;
const maxWorkers = 2;
const policiesKept = 32;
/** The engine's own limit comes first: it names what ran, and leaves the worker alive. */
const engineShareOfTimeout = 0.9;

export interface RegoEngineOptions {
  /** Milliseconds for one check or evaluation, waiting for a free worker not counted. Default 2000. */
  readonly timeoutMs?: number;
  /** Most memory of an engine, in pages of 64 KiB. Default 2048 (128 MiB). */
  readonly memoryPages?: number;
  /** Largest policy text in UTF-8 bytes. Default 16 MiB. */
  readonly maxPolicyBytes?: number;
  /** Worker threads, each started when the others are busy. Default 2. */
  readonly workers?: number;
  /** Where the bundled worker is. Default: `worker.ts` beside this file, or `rego-worker.mjs` beside the bundle. */
  readonly workerUrl?: URL;
  /** Where the module is. Default: `regorus.wasm` beside this file, or beside the bundle. */
  readonly wasmUrl?: URL;
}

export interface RegoEvaluation {
  /** One Rego v1 module. */
  readonly policy: string;
  /** Full rule paths, e.g. `data.policy.allow`. */
  readonly rules: readonly string[];
  /** `input`, a JSON value. */
  readonly input: unknown;
  /** `data`, a JSON object. */
  readonly data?: unknown;
  readonly functions?: {
    /** What `query_reference_value(id)` answers, by id; an id not in here is `null`. */
    readonly query_reference_value: Readonly<Record<string, unknown>>;
  };
  /** A failing builtin fails the evaluation (default, as Trustee) instead of being undefined (as Kata's agent). */
  readonly strictBuiltinErrors?: boolean;
  /** Collect what `print` says. */
  readonly gatherPrints?: boolean;
}

export interface RegoResult {
  /** Value by rule path; a rule that does not exist or has no value is undefined. Sets are arrays. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly prints: readonly string[];
  /** Ids that the policy asked `query_reference_value` for, in order of first use. */
  readonly referenceValueIds: readonly string[];
}

/** An engine with default limits; nothing is started before the first policy. */
export function createRegoEngine(options: RegoEngineOptions = {}): RegoEngine {
  return new RegoEngine(options);
}

/**
 * Evaluates untrusted Rego v1 policies. Every failure is a SealpodError: POLICY_INVALID (does not compile, exceeds a size
 * limit, fails in a builtin), POLICY_TIMEOUT (time, memory or stack ran out) or REQUEST_TOO_LARGE (input or data).
 * A policy is compiled once and cloned for each evaluation. Integers beyond 2^53 lose precision in results.
 */
export class RegoEngine {
  readonly #options: RegoEngineOptions;
  readonly #workers = new Set<WorkerThread>();
  readonly #idle: WorkerThread[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly #policyIds = new Map<string, number>();
  #starting = 0;
  #nextPolicyId = 1;
  #module: Promise<WebAssembly.Module> | undefined;
  #closed = false;

  constructor(options: RegoEngineOptions = {}) {
    this.#options = options;
  }

  /**
   * Parses and compiles a policy without evaluating it. Rejects where it is not usable. What it cannot tell: an unknown
   * function or variable shows when the rule that names it is evaluated.
   */
  async check(policy: string): Promise<void> {
    await this.#run(policy, { strictBuiltinErrors: true, gatherPrints: false, rules: [], referenceValues: {} });
  }

  /** Evaluates rules of a policy against an input. */
  async evaluate(evaluation: RegoEvaluation): Promise<RegoResult> {
    const { rules, functions } = evaluation;
    if (rules.length === 0) throw new SealpodError('POLICY_INVALID', 'no rule was asked for');
    const reply = await this.#run(evaluation.policy, {
      strictBuiltinErrors: evaluation.strictBuiltinErrors ?? true,
      gatherPrints: evaluation.gatherPrints ?? false,
      rules,
      ...document('input', evaluation.input),
      ...document('data', evaluation.data),
      ...(functions === undefined ? {} : { referenceValues: functions.query_reference_value }),
    });
    const values: Record<string, unknown> = {};
    rules.forEach((rule, index) => {
      const text = reply.values[index];
      values[rule] = text === undefined ? undefined : JSON.parse(text);
    });
    return { values, prints: reply.prints, referenceValueIds: reply.referenceValueIds };
  }

  /** Ends all workers. What is under way or comes later rejects with INTERNAL. */
  async close(): Promise<void> {
    this.#closed = true;
    const error = closedError();
    await Promise.all([...this.#workers].map((worker) => worker.terminate(error)));
    for (const proceed of this.#waiting.splice(0)) proceed();
  }

  async #run(
    policy: string,
    work: Omit<WorkRequest, 'policyId' | 'policy' | 'forget'>,
  ): Promise<WorkReply & { ok: true }> {
    this.#checkText(policy);
    const worker = await this.#acquire();
    try {
      const reply = await worker.run({ ...this.#address(worker, policy), ...work }, this.#timeoutMs);
      if (!reply.ok) throw new SealpodError(reply.code, reply.message.trim());
      return reply;
    } finally {
      this.#release(worker);
    }
  }

  get #timeoutMs(): number {
    return this.#options.timeoutMs ?? defaultTimeoutMs;
  }

  get #maxPolicyBytes(): number {
    return this.#options.maxPolicyBytes ?? defaultMaxPolicyBytes;
  }

  #checkText(policy: string): void {
    const bytes = Buffer.byteLength(policy);
    if (bytes > this.#maxPolicyBytes) {
      throw new SealpodError('POLICY_INVALID', 'the policy is too large', {
        expected: `at most ${this.#maxPolicyBytes} bytes`,
        actual: `${bytes} bytes`,
      });
    }
    const depth = nestingDepth(policy);
    if (depth > maxNestingDepth) {
      throw new SealpodError('POLICY_INVALID', 'the policy nests brackets too deeply', {
        expected: `at most ${maxNestingDepth} levels`,
        actual: `${depth} levels`,
      });
    }
  }

  /** Number, and where the worker has it not yet, text of a policy. */
  #address(worker: WorkerThread, policy: string): Pick<WorkRequest, 'policyId' | 'policy' | 'forget'> {
    const policyId = this.#policyIds.get(policy) ?? this.#nextPolicyId++;
    this.#policyIds.delete(policy);
    this.#policyIds.set(policy, policyId);
    const eldest = this.#policyIds.keys().next();
    if (this.#policyIds.size > policiesKept && !eldest.done) this.#policyIds.delete(eldest.value);
    if (worker.known.delete(policyId)) {
      worker.known.add(policyId);
      return { policyId };
    }
    worker.known.add(policyId);
    const forget = worker.known.size > policiesKept ? worker.known.values().next().value : undefined;
    if (forget === undefined) return { policyId, policy };
    worker.known.delete(forget);
    return { policyId, policy, forget };
  }

  async #acquire(): Promise<WorkerThread> {
    for (;;) {
      if (this.#closed) throw closedError();
      const idle = this.#idle.pop();
      if (idle !== undefined) {
        if (!idle.ended) return idle;
        this.#workers.delete(idle);
        continue;
      }
      if (this.#workers.size + this.#starting < (this.#options.workers ?? maxWorkers)) return this.#start();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #release(worker: WorkerThread): void {
    if (worker.ended) this.#workers.delete(worker);
    else this.#idle.push(worker);
    this.#waiting.shift()?.();
  }

  async #start(): Promise<WorkerThread> {
    this.#starting++;
    try {
      this.#module ??= readFile(this.#options.wasmUrl ?? new URL('./regorus.wasm', import.meta.url)).then((bytes) =>
        WebAssembly.compile(bytes),
      );
      const module = await this.#module;
      if (this.#closed) throw closedError();
      const worker = new WorkerThread(this.#options.workerUrl ?? defaultWorkerUrl(), {
        module,
        memoryPages: this.#options.memoryPages ?? defaultMemoryPages,
        limits: {
          milliseconds: Math.max(1, Math.floor(this.#timeoutMs * engineShareOfTimeout)),
          maxPolicyBytes: this.#maxPolicyBytes,
          maxPolicyLines,
          maxPolicyColumns,
        },
      });
      this.#workers.add(worker);
      return worker;
    } catch (thrown) {
      this.#module = undefined;
      this.#waiting.shift()?.();
      throw thrown;
    } finally {
      this.#starting--;
    }
  }
}

/** Run from source, the worker is TypeScript beside this file; in a bundle it is a bundle of its own. */
function defaultWorkerUrl(): URL {
  const fromSource = import.meta.url.endsWith('.ts');
  return new URL(fromSource ? './worker.ts' : './rego-worker.mjs', import.meta.url);
}

function closedError(): SealpodError {
  return new SealpodError('INTERNAL', 'the policy engine is closed');
}

function document<K extends 'input' | 'data'>(name: K, value: unknown): { [key in K]?: string } {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) return {};
  if (Buffer.byteLength(text) > maxDocumentBytes) {
    throw new SealpodError('REQUEST_TOO_LARGE', `the policy's ${name} is too large`, {
      expected: `at most ${maxDocumentBytes} bytes`,
      actual: `${Buffer.byteLength(text)} bytes`,
    });
  }
  return { [name]: text } as { [key in K]?: string };
}
