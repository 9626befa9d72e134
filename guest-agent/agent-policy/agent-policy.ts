import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { RegoEngine } from '@sealpod/rego';
import { applyPatch, type PatchOperation } from './json-patch.ts';

/** The policy of the image, where initdata brings none: it allows nothing. Health answers without asking any policy. */
export const denyAllPolicy = 'package agent_policy\n';

const packagePath = 'data.agent_policy';
const allowFailingRule = `${packagePath}.AllowRequestsFailingPolicy`;

export interface AgentPolicyOptions {
  readonly engine: RegoEngine;
  /** Policy text from initdata; undefined refuses everything but Health. */
  readonly policy?: string;
  /**
   * Honours `AllowRequestsFailingPolicy := true`. For measured debug images only: a production image leaves it false, and a
   * policy that sets the switch is then refused as a whole.
   */
  readonly debug?: boolean;
}

/** What a policy says to one request. */
export interface PolicyDecision {
  readonly allowed: boolean;
  /** What the policy printed, for the operator who may read it in the refusal. */
  readonly prints: readonly string[];
  /** Why not, where the evaluation itself failed. */
  readonly failure?: SealpodError;
}

interface Loaded {
  readonly text: string;
  readonly allowFailing: boolean;
}

/**
 * The agent policy of one pod VM, with its state: `data.pstate` starts as `{}` and takes the JSON Patch operations that an
 * allowing rule returns as `{"allowed": true, "ops": […]}`, paths beginning `/pstate/`. Decisions are taken one at a time,
 * each on the state that the one before left.
 */
export class AgentPolicy {
  readonly #engine: RegoEngine;
  readonly #debug: boolean;
  #loaded: Loaded = { text: denyAllPolicy, allowFailing: false };
  #data: { pstate: unknown } = { pstate: {} };
  #last: Promise<unknown> = Promise.resolve();

  private constructor(options: AgentPolicyOptions) {
    this.#engine = options.engine;
    this.#debug = options.debug ?? false;
  }

  /** Rejects with POLICY_INVALID where the policy does not compile, or sets a debug switch in a production image. */
  static async create(options: AgentPolicyOptions): Promise<AgentPolicy> {
    const policy = new AgentPolicy(options);
    if (options.policy !== undefined) await policy.replace(options.policy);
    return policy;
  }

  /** Puts another policy in place; the state stays. The caller has asked the present policy for SetPolicyRequest. */
  replace(text: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#engine.check(text);
      const { values } = await this.#engine.evaluate({
        policy: text,
        rules: [allowFailingRule],
        input: {},
        data: this.#data,
        strictBuiltinErrors: false,
      });
      const allowFailing = values[allowFailingRule] === true;
      if (allowFailing && !this.#debug) {
        throw new SealpodError(
          'POLICY_INVALID',
          'the policy sets AllowRequestsFailingPolicy, which this image refuses',
          {
            source: allowFailingRule,
            fix: 'remove AllowRequestsFailingPolicy from policy.rego',
          },
        );
      }
      this.#loaded = { text, allowFailing };
    });
  }

  /** Asks the policy whether a request may be served. Never rejects: whatever fails is a refusal. */
  decide(requestType: string, input: unknown): Promise<PolicyDecision> {
    return this.#inTurn(async () => {
      const decision = await this.#evaluate(requestType, input);
      return decision.allowed || !this.#loaded.allowFailing ? decision : { ...decision, allowed: true };
    });
  }

  async #evaluate(requestType: string, input: unknown): Promise<PolicyDecision> {
    const rule = `${packagePath}.${requestType}`;
    try {
      const { values, prints } = await this.#engine.evaluate({
        policy: this.#loaded.text,
        rules: [rule],
        input,
        data: this.#data,
        strictBuiltinErrors: false,
        gatherPrints: true,
      });
      return { allowed: this.#accept(values[rule]), prints };
    } catch (thrown) {
      return { allowed: false, prints: [], failure: asSealpodError(thrown, 'POLICY_INVALID') };
    }
  }

  /** Whether a rule's value allows, and keeps the state it asks for. Anything but `true` and an allowing object refuses. */
  #accept(value: unknown): boolean {
    if (value === true) return true;
    if (typeof value !== 'object' || value === null || !('allowed' in value) || value.allowed !== true) return false;
    const operations = 'ops' in value ? value.ops : [];
    if (!Array.isArray(operations)) throw new Error('the policy returned operations that are no array');
    this.#data = { pstate: patchedState(this.#data, operations) };
    return true;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

function patchedState(data: { pstate: unknown }, operations: readonly unknown[]): unknown {
  for (const operation of operations) {
    if (!isStateOperation(operation)) throw new Error('the policy returned an operation outside of /pstate');
  }
  const patched = applyPatch(data, operations as PatchOperation[]);
  return (patched as { pstate: unknown }).pstate;
}

function isStateOperation(operation: unknown): operation is PatchOperation {
  if (typeof operation !== 'object' || operation === null || !('path' in operation)) return false;
  const pointers = [operation.path, ...('from' in operation ? [operation.from] : [])];
  return pointers.every((pointer) => typeof pointer === 'string' && pointer.startsWith('/pstate/'));
}
