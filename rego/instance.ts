import { performance } from 'node:perf_hooks';

/** What the module exports; see engine/src/lib.rs. */
interface EngineExports {
  memory_allocate(length: number): number;
  memory_free(pointer: number, length: number): void;
  result_pointer(): number;
  result_length(): number;
  engine_create(flags: number): number;
  engine_clone(handle: number): number;
  engine_drop(handle: number): void;
  engine_set_limits(
    handle: number,
    milliseconds: number,
    checkEvery: number,
    maxBytes: number,
    maxLines: number,
    maxColumns: number,
  ): number;
  engine_add_policy(handle: number, name: number, nameLength: number, source: number, sourceLength: number): number;
  engine_add_data(handle: number, json: number, length: number): number;
  engine_set_input(handle: number, json: number, length: number): number;
  engine_eval_rule(handle: number, path: number, length: number): number;
  engine_eval_query(handle: number, query: number, length: number): number;
  engine_take_prints(handle: number): number;
  engine_add_function(handle: number, name: number, length: number, arity: number): number;
}

type TextCall = 'engine_add_data' | 'engine_set_input' | 'engine_eval_rule' | 'engine_eval_query';

/** A function of the host: JSON in, JSON out; `undefined` is Rego's undefined; a thrown error fails the builtin call. */
export type HostFunction = (...arguments_: unknown[]) => unknown;

/** The engine says no: the policy does not compile, a builtin fails, or the evaluation's own time limit passed. */
export class EngineError extends Error {}

/** The instance trapped and is dead. `exhausted`: out of memory or stack; otherwise the engine panicked. */
export class EngineTrap extends Error {
  readonly exhausted: boolean;
  constructor(message: string, exhausted: boolean, cause: unknown) {
    super(message, { cause });
    this.exhausted = exhausted;
  }
}

export interface EngineLimits {
  /** Of one evaluation, looked at between rules only. */
  readonly milliseconds: number;
  readonly maxPolicyBytes: number;
  readonly maxPolicyLines: number;
  readonly maxPolicyColumns: number;
}

const flagStrictBuiltinErrors = 1;
const flagGatherPrints = 2;
const clockCheckInterval = 256;
const initialPages = 64;

/**
 * One instance of the WebAssembly module: its own memory, capped, and any number of engines by handle. Not thread-safe,
 * and not bounded in time: a builtin or the parser may run for long. Use it in a worker that can be terminated.
 */
export class EngineInstance {
  readonly #memory: WebAssembly.Memory;
  readonly #exports: EngineExports;
  readonly #functions = new Map<string, HostFunction>();
  #dead = false;
  #panic = '';

  constructor(module: WebAssembly.Module, memoryPages: number) {
    this.#memory = new WebAssembly.Memory({ initial: initialPages, maximum: memoryPages });
    const host = {
      wall_clock_ms: () => Date.now(),
      monotonic_clock_ms: () => performance.now(),
      panicked: (pointer: number, length: number) => {
        this.#panic = this.#read(pointer, length);
      },
      call_function: (name: number, nameLength: number, arguments_: number, length: number, answer: number) =>
        this.#callFunction(this.#read(name, nameLength), this.#read(arguments_, length), answer),
    };
    const instance = new WebAssembly.Instance(module, { env: { memory: this.#memory }, host });
    this.#exports = instance.exports as unknown as EngineExports;
  }

  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  get dead(): boolean {
    return this.#dead;
  }

  /** Replaces what `name` calls in all engines of this instance. */
  setFunction(name: string, implementation: HostFunction): void {
    this.#functions.set(name, implementation);
  }

  create(options: { strictBuiltinErrors: boolean; gatherPrints: boolean }, limits: EngineLimits): number {
    return this.#guarded(() => {
      const flags =
        (options.strictBuiltinErrors ? flagStrictBuiltinErrors : 0) | (options.gatherPrints ? flagGatherPrints : 0);
      const handle = this.#exports.engine_create(flags);
      this.#answer(
        this.#exports.engine_set_limits(
          handle,
          limits.milliseconds,
          clockCheckInterval,
          limits.maxPolicyBytes,
          limits.maxPolicyLines,
          limits.maxPolicyColumns,
        ),
      );
      return handle;
    });
  }

  clone(handle: number): number {
    return this.#guarded(() => {
      const copy = this.#exports.engine_clone(handle);
      if (copy === 0) throw new EngineError(`there is no engine ${handle}`);
      return copy;
    });
  }

  drop(handle: number): void {
    if (!this.#dead) this.#guarded(() => this.#exports.engine_drop(handle));
  }

  /** Parses and adds a module; returns its package, e.g. `data.policy`. */
  addPolicy(handle: number, name: string, source: string): string {
    return this.#guarded(() =>
      this.#withText(name, (namePointer, nameLength) =>
        this.#withText(
          source,
          (pointer, length) =>
            this.#answer(this.#exports.engine_add_policy(handle, namePointer, nameLength, pointer, length)) ?? '',
        ),
      ),
    );
  }

  addFunction(handle: number, name: string, arity: number): void {
    this.#guarded(() =>
      this.#withText(name, (pointer, length) =>
        this.#answer(this.#exports.engine_add_function(handle, pointer, length, arity)),
      ),
    );
  }

  addData(handle: number, json: string): void {
    this.#text('engine_add_data', handle, json);
  }

  setInput(handle: number, json: string): void {
    this.#text('engine_set_input', handle, json);
  }

  /** The value of a rule as JSON text, or undefined. Throws EngineError `not a valid rule path` where there is none. */
  evaluateRule(handle: number, path: string): string | undefined {
    return this.#text('engine_eval_rule', handle, path);
  }

  /** regorus' result set as JSON text. */
  evaluateQuery(handle: number, query: string): string {
    return this.#text('engine_eval_query', handle, query) ?? '{"result":[]}';
  }

  takePrints(handle: number): string[] {
    return this.#guarded(() => JSON.parse(this.#answer(this.#exports.engine_take_prints(handle)) ?? '[]') as string[]);
  }

  #text(call: TextCall, handle: number, text: string): string | undefined {
    return this.#guarded(() =>
      this.#withText(text, (pointer, length) => this.#answer(this.#exports[call](handle, pointer, length))),
    );
  }

  #guarded<T>(work: () => T): T {
    if (this.#dead) throw new EngineTrap('the instance is dead', false, undefined);
    try {
      return work();
    } catch (thrown) {
      if (thrown instanceof EngineError) throw thrown;
      this.#dead = true;
      if (thrown instanceof EngineTrap) throw thrown;
      const panicked = this.#panic !== '';
      const reason = panicked ? `the engine panicked: ${this.#panic}` : 'the policy ran out of memory or stack';
      throw new EngineTrap(reason, !panicked, thrown);
    }
  }

  #answer(status: number): string | undefined {
    const text = this.#read(this.#exports.result_pointer(), this.#exports.result_length());
    if (status === 0) return text;
    if (status === 1) return undefined;
    throw new EngineError(text);
  }

  #read(pointer: number, length: number): string {
    return new TextDecoder().decode(new Uint8Array(this.#memory.buffer, pointer, length));
  }

  /** Writes text into the module's memory; the pointer is the module's to free. */
  #write(text: string): [pointer: number, length: number] {
    const bytes = new TextEncoder().encode(text);
    const pointer = this.#exports.memory_allocate(bytes.length);
    if (pointer === 0) throw new EngineTrap('the policy ran out of memory', true, undefined);
    new Uint8Array(this.#memory.buffer, pointer, bytes.length).set(bytes);
    return [pointer, bytes.length];
  }

  #withText<T>(text: string, use: (pointer: number, length: number) => T): T {
    const [pointer, length] = this.#write(text);
    let result: T;
    try {
      result = use(pointer, length);
    } catch (thrown) {
      // Only an answered error leaves the memory intact; after a trap the instance is thrown away whole.
      if (thrown instanceof EngineError) this.#exports.memory_free(pointer, length);
      throw thrown;
    }
    this.#exports.memory_free(pointer, length);
    return result;
  }

  #callFunction(name: string, arguments_: string, answer: number): number {
    let status = 0;
    let text = '';
    try {
      const implementation = this.#functions.get(name);
      if (implementation === undefined) throw new Error(`the host has no function ${name}`);
      const result = implementation(...(JSON.parse(arguments_) as unknown[]));
      if (result === undefined) status = 1;
      else text = JSON.stringify(result);
    } catch (thrown) {
      status = 2;
      text = thrown instanceof Error ? thrown.message : String(thrown);
    }
    const [pointer, length] = this.#write(text);
    const view = new DataView(this.#memory.buffer);
    view.setUint32(answer, pointer, true);
    view.setUint32(answer + 4, length, true);
    return status;
  }
}
