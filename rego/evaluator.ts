import { EngineError, EngineInstance, EngineTrap } from './instance.ts';
import type { WorkerSettings, WorkReply, WorkRequest } from './messages.ts';

const referenceValueFunction = 'query_reference_value';
const noSuchRule = 'not a valid rule path';
const timeLimitText = 'execution exceeded time limit';
/** No policy names this path: asking for it makes regorus prepare all modules and evaluate none. */
const preparationPath = 'data.sealpod_preparation.nothing';

interface Prepared {
  readonly policy: string;
  /** Engine handle by its flags. */
  readonly handles: Map<string, number>;
}

/** What runs in the worker: keeps one prepared engine for each policy and evaluates on a clone of it. */
export class Evaluator {
  readonly #settings: WorkerSettings;
  readonly #policies = new Map<number, Prepared>();
  #instance: EngineInstance;
  #used = false;

  constructor(settings: WorkerSettings) {
    this.#settings = settings;
    this.#instance = new EngineInstance(settings.module, settings.memoryPages);
  }

  run(request: WorkRequest): WorkReply {
    if (request.forget !== undefined) this.#forget(request.forget);
    try {
      if (request.policy !== undefined) this.#learn(request.policyId, request.policy);
      const usedBefore = this.#used;
      this.#used = true;
      try {
        return this.#evaluate(request);
      } catch (thrown) {
        if (!(thrown instanceof EngineTrap)) throw thrown;
        this.#renew();
        // Other policies' engines share the memory of a long-lived instance: what ran out there gets one fresh try.
        if (!usedBefore || !thrown.exhausted) throw thrown;
        return this.#evaluate(request);
      }
    } catch (thrown) {
      if (this.#instance.dead) this.#renew();
      return { ok: false, ...failure(thrown), prints: [] };
    }
  }

  #learn(id: number, policy: string): void {
    this.#forget(id);
    this.#policies.set(id, { policy, handles: new Map() });
  }

  #forget(id: number): void {
    for (const handle of this.#policies.get(id)?.handles.values() ?? []) this.#instance.drop(handle);
    this.#policies.delete(id);
  }

  #renew(): void {
    this.#instance = new EngineInstance(this.#settings.module, this.#settings.memoryPages);
    this.#used = false;
    for (const prepared of this.#policies.values()) prepared.handles.clear();
  }

  #evaluate(request: WorkRequest): WorkReply {
    const prepared = this.#prepared(request);
    if (request.rules.length === 0) return { ok: true, values: [], prints: [], referenceValueIds: [] };
    const instance = this.#instance;
    const engine = instance.clone(prepared);
    const asked = new Set<string>();
    instance.setFunction(referenceValueFunction, (id) => {
      if (typeof id !== 'string') throw new Error(`${referenceValueFunction} takes a string`);
      asked.add(id);
      const known = request.referenceValues ?? {};
      return Object.hasOwn(known, id) ? known[id] : null;
    });
    try {
      if (request.data !== undefined) instance.addData(engine, request.data);
      if (request.input !== undefined) instance.setInput(engine, request.input);
      const values = request.rules.map((rule) => evaluateRule(instance, engine, rule));
      const prints = request.gatherPrints ? instance.takePrints(engine) : [];
      return { ok: true, values, prints, referenceValueIds: [...asked] };
    } finally {
      instance.drop(engine);
    }
  }

  #prepared(request: WorkRequest): number {
    const known = this.#policies.get(request.policyId);
    if (known === undefined) throw new Error(`policy ${request.policyId} was never sent`);
    const flags = [request.strictBuiltinErrors, request.gatherPrints, request.referenceValues !== undefined].join();
    const found = known.handles.get(flags);
    if (found !== undefined) return found;
    const handle = this.#instance.create(request, this.#settings.limits);
    try {
      if (request.referenceValues !== undefined) this.#instance.addFunction(handle, referenceValueFunction, 1);
      this.#instance.addPolicy(handle, 'policy.rego', known.policy);
      evaluateRule(this.#instance, handle, preparationPath);
    } catch (thrown) {
      this.#instance.drop(handle);
      throw thrown;
    }
    known.handles.set(flags, handle);
    return handle;
  }
}

function evaluateRule(instance: EngineInstance, engine: number, path: string): string | undefined {
  try {
    return instance.evaluateRule(engine, path);
  } catch (thrown) {
    if (thrown instanceof EngineError && thrown.message.includes(noSuchRule)) return undefined;
    throw thrown;
  }
}

function failure(thrown: unknown): { code: 'POLICY_INVALID' | 'POLICY_TIMEOUT' | 'INTERNAL'; message: string } {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (thrown instanceof EngineTrap) return { code: thrown.exhausted ? 'POLICY_TIMEOUT' : 'POLICY_INVALID', message };
  if (!(thrown instanceof EngineError)) return { code: 'INTERNAL', message };
  return { code: message.includes(timeLimitText) ? 'POLICY_TIMEOUT' : 'POLICY_INVALID', message };
}
