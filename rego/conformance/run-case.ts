import { EngineInstance, type EngineLimits } from '../instance.ts';
import type { ConformanceCase } from './cases.ts';

const limits: EngineLimits = {
  milliseconds: 5000,
  maxPolicyBytes: 10_000_000,
  maxPolicyLines: 100_000,
  maxPolicyColumns: 1_000_000,
};
const memoryPages = 2048;
const significantDigits = 12;

type Bindings = Record<string, unknown>;

/** Runs cases one after the other, with a new instance after a trap. */
export class CaseRunner {
  readonly #module: WebAssembly.Module;
  #instance: EngineInstance;

  constructor(module: WebAssembly.Module) {
    this.#module = module;
    this.#instance = new EngineInstance(module, memoryPages);
  }

  /** Undefined where the case passes, else what happened instead, in one line. */
  run(item: ConformanceCase): string | undefined {
    if (this.#instance.dead) this.#instance = new EngineInstance(this.#module, memoryPages);
    let results: Bindings[];
    try {
      results = this.#evaluate(item);
    } catch (thrown) {
      const message = (thrown instanceof Error ? thrown.message : String(thrown)).trim();
      const reason = message.split('error: ').at(-1)?.split('\n')[0] ?? message;
      const unknownFunction = message.includes('could not find function');
      return wantsError(item) && !unknownFunction ? undefined : `error: ${reason}`;
    }
    if (wantsError(item)) return 'no error';
    if (item.want_result !== undefined) {
      const [wanted, got] = [normal(item, item.want_result), normal(item, results)];
      return wanted === got ? undefined : 'another result';
    }
    if (item.want_defined !== undefined && results.length > 0 !== item.want_defined) return 'another definedness';
    return undefined;
  }

  #evaluate(item: ConformanceCase): Bindings[] {
    const instance = this.#instance;
    const handle = instance.create({ strictBuiltinErrors: item.strict_error ?? false, gatherPrints: false }, limits);
    try {
      if (item.data !== undefined) instance.addData(handle, JSON.stringify(item.data));
      item.modules?.forEach((source, index) => void instance.addPolicy(handle, `module${index}.rego`, source));
      const input = item.input_term === undefined ? item.input : this.#term(item.input_term);
      if (input !== undefined) instance.setInput(handle, JSON.stringify(input));
      const text = instance.evaluateQuery(handle, item.query);
      return ((JSON.parse(text) as { result?: { bindings: Bindings }[] }).result ?? []).map(({ bindings }) => bindings);
    } finally {
      instance.drop(handle);
    }
  }

  #term(term: string): unknown {
    const handle = this.#instance.create({ strictBuiltinErrors: false, gatherPrints: false }, limits);
    try {
      const text = this.#instance.evaluateQuery(handle, term);
      return (JSON.parse(text) as { result: { expressions: { value: unknown }[] }[] }).result.at(-1)?.expressions.at(-1)
        ?.value;
    } finally {
      this.#instance.drop(handle);
    }
  }
}

function wantsError(item: ConformanceCase): boolean {
  return item.want_error !== undefined || item.want_error_code !== undefined;
}

/** Results are a set of bindings, and a set stands as an array in any order where the case says so. */
function normal(item: ConformanceCase, results: readonly Bindings[]): string {
  const rows = results.map((bindings) =>
    Object.fromEntries(
      Object.entries(bindings)
        .filter(([name]) => !(item.ignore_generated_vars && name.startsWith('$')))
        .map(([name, value]) => [name, item.sort_bindings && Array.isArray(value) ? sorted(value) : value]),
    ),
  );
  return JSON.stringify(sorted(rows));
}

function sorted(values: readonly unknown[]): unknown[] {
  return values.map(canonical).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

function canonical(value: unknown): unknown {
  if (typeof value === 'number') return Number(value.toPrecision(significantDigits));
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => [key, canonical(member)]),
  );
}
