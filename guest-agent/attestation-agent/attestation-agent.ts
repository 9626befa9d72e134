import { performance } from 'node:perf_hooks';
import { SealpodError } from '@sealpod/protocol/errors';
import { canonicalJson } from '@sealpod/protocol/json';
import { decryptResponse, parseResponse } from '@sealpod/protocol/rcar';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { type ResourceUri, resourceHttpPath } from '@sealpod/protocol/resource-uri';
import type { Attester } from '../attesters/attester.ts';
import {
  type AttestationToken,
  attest,
  type BrokerConnection,
  type RcarClientOptions,
  userAgent,
} from './rcar-client.ts';
import { refusal } from './refusal.ts';

export interface AttestationAgentOptions extends Omit<RcarClientOptions, 'connection'> {
  /** Undefined where initdata names no key broker: everything that needs one is refused. */
  readonly connection?: BrokerConnection;
  /** Milliseconds of a monotonic clock. */
  readonly now?: () => number;
  /** Runs each attestation, to tell of it. */
  readonly during?: (attestation: () => Promise<AttestationToken>) => Promise<AttestationToken>;
}

/** A token is renewed when less than this part of its life is left. */
const renewalShare = 0.1;
/** Refusals after which a fresh attestation may help: the token is not accepted (any more). */
const staleCodes: readonly ReasonCode[] = ['TOKEN_INVALID', 'TOKEN_MISSING', 'SESSION_UNKNOWN'];
/** Refusals that may rest on an appraisal that has changed since the token was made. */
const appraisedCodes: readonly ReasonCode[] = [
  'POLICY_DENY',
  'RES_FORBIDDEN',
  'EV_SIMULATED',
  'RV_NOT_LOADED',
  'RV_MISMATCH',
];

/**
 * Attests this guest to its key broker and fetches resources from it. One attestation serves all callers for the life of
 * the token; concurrent callers share the one that is under way.
 */
export class AttestationAgent {
  readonly #options: AttestationAgentOptions;
  readonly #now: () => number;
  #current: { token: AttestationToken; expires: number } | undefined;
  #pending: Promise<AttestationToken> | undefined;

  constructor(options: AttestationAgentOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  get tee(): Attester['tee'] {
    return this.#options.attester.tee;
  }

  /** Evidence for data of a caller, verbatim, without a broker; JSON text with sorted members as upstream gives it. */
  async evidence(runtimeData: Uint8Array): Promise<string> {
    return canonicalJson(await this.#options.attester.evidence(runtimeData, ''));
  }

  /** The cached token, or a new one where there is none or it is near its end. */
  async token(): Promise<AttestationToken> {
    const { connection } = this.#options;
    if (connection === undefined) {
      throw new SealpodError('KBS_UNREACHABLE', 'initdata names no key broker', {
        fix: 'name it in token_configs.kbs of aa.toml, and pin its certificate',
      });
    }
    if (this.#current !== undefined && this.#now() < this.#current.expires) return this.#current.token;
    const { during = (attestation) => attestation() } = this.#options;
    this.#pending ??= during(() => attest({ ...this.#options, connection }))
      .then((token) => {
        this.#current = { token, expires: this.#now() + token.lifetimeMs * (1 - renewalShare) };
        return token;
      })
      .finally(() => {
        this.#pending = undefined;
      });
    return await this.#pending;
  }

  /**
   * Fetches a resource and decrypts it with the session's key.
   *
   * @throws SealpodError of the broker's reason with its correlation id; RES_NAME, KBS_UNREACHABLE, KBS_KEY
   */
  async resource(uri: ResourceUri): Promise<Buffer> {
    const path = resourceHttpPath(uri);
    const before = this.#current?.token;
    const token = await this.token();
    try {
      return await this.#fetch(path, token);
    } catch (error) {
      if (!(error instanceof SealpodError) || !this.#worthAttestingAgain(error.code, token === before)) throw error;
    }
    this.#forget(token);
    return await this.#fetch(path, await this.token());
  }

  #worthAttestingAgain(code: ReasonCode, wasCached: boolean): boolean {
    return staleCodes.includes(code) || (wasCached && appraisedCodes.includes(code));
  }

  #forget(token: AttestationToken): void {
    if (this.#current?.token === token) this.#current = undefined;
  }

  async #fetch(path: string, { token, teeKey }: AttestationToken): Promise<Buffer> {
    const { connection } = this.#options;
    if (connection === undefined) throw new SealpodError('KBS_UNREACHABLE', 'initdata names no key broker');
    const headers = { authorization: `Bearer ${token}`, accept: '*/*', 'user-agent': userAgent };
    const answer = await connection.send({ method: 'GET', path, headers });
    if (answer.status !== 200) {
      throw refusal(
        answer,
        answer.status === 404 ? 'RES_NOT_FOUND' : 'RES_FORBIDDEN',
        'the key broker refused the resource',
      );
    }
    try {
      return decryptResponse(teeKey, parseResponse(answer.body));
    } catch (cause) {
      throw new SealpodError('EV_BINDING_MISMATCH', 'the resource is not encrypted to the key of this session', {
        cause,
      });
    }
  }
}
