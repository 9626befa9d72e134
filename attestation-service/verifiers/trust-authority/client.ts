import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, parseJson, stringMember } from '@sealpod/protocol/json';
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { askService } from '../../endorsements/veraison/http.ts';
import type { TrustAuthorityConfig, TrustAuthorityTee } from './config.ts';

/** What it signs with; the first is what is asked for. */
const algorithms = ['PS384', 'RS256'];
const clockToleranceSeconds = 5;
/** How long a published key set is used; a key that is not in it is looked for at once, at most this often. */
const keysLifetimeMs = 600_000;
const keysCooldownMs = 30_000;

/** Evidence for one attestation. */
export interface TrustAuthorityEvidence {
  readonly quote: Buffer;
  /** Event log of a TD. */
  readonly eventLog?: Buffer;
}

/** A client of Intel Trust Authority's appraisal API, version 2 (trustee: Intel Trust Authority back end). */
export class TrustAuthorityClient {
  readonly #config: TrustAuthorityConfig;
  readonly #pinned: JWTVerifyGetKey | undefined;
  #published: { readonly find: JWTVerifyGetKey; readonly at: number } | undefined;

  constructor(config: TrustAuthorityConfig) {
    this.#config = config;
    this.#pinned = 'text' in config.keys ? keySet(config.keys.text) : undefined;
  }

  get name(): string {
    return `Intel Trust Authority ${this.#config.url}`;
  }

  /**
   * Has a quote attested; the claims of the token, whose signature and dates are verified. That they are about this quote, and
   * what they mean, is for the caller.
   *
   * @throws SealpodError EV_REFUSED where it refuses the evidence, EV_COLLATERAL_UNAVAILABLE where it cannot be asked or
   * answers no token, EV_SIGNATURE where the token is not its own
   */
  async attest(tee: TrustAuthorityTee, { quote, eventLog }: TrustAuthorityEvidence, now: Date): Promise<JsonObject> {
    const { policyIds = [], apiKey, url } = this.#config;
    const body = {
      [tee]: {
        quote: quote.toString('base64'),
        ...(eventLog === undefined ? {} : { event_log: eventLog.toString('base64') }),
      },
      ...(policyIds.length === 0 ? {} : { policy_ids: policyIds }),
      token_signing_alg: algorithms[0],
    };
    const answer = await askService(
      {
        method: 'POST',
        url: `${url}/appraisal/v2/attest`,
        headers: { accept: 'application/json', 'content-type': 'application/json', 'x-api-key': apiKey },
        body: Buffer.from(JSON.stringify(body)),
      },
      this.#limits,
    );
    if (answer.status !== 200) throw this.#refusal(answer.status, answer.body);
    const token = this.#unavailable('an answer without a token', () =>
      stringMember(asJsonObject(parseJson(answer.body, { what: 'answer' }), 'answer'), 'token'),
    );
    return this.#claimsOf(token, now);
  }

  get #limits(): { readonly authorities?: string; readonly timeoutMs?: number } {
    const { authorities, timeoutMs } = this.#config;
    return { ...(authorities === undefined ? {} : { authorities }), ...(timeoutMs === undefined ? {} : { timeoutMs }) };
  }

  /** The service tells what is wrong with evidence by 400; any other status says that it was not judged. */
  #refusal(status: number, body: Buffer): SealpodError {
    const text = body.toString('utf8', 0, 300).replaceAll(/[^\x20-\x7e]/g, ' ');
    const detail = { expected: 'a token', actual: `status ${status}: ${text}`, source: this.name };
    return status === 400
      ? new SealpodError('EV_REFUSED', 'the verification service refuses the evidence', detail)
      : new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'a verification service did not judge the evidence', detail);
  }

  #unavailable<Result>(problem: string, work: () => Result): Result {
    try {
      return work();
    } catch (cause) {
      const detail = { expected: `an answer from ${this.name}`, actual: problem, cause };
      throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'a verification service could not be asked', detail);
    }
  }

  async #claimsOf(token: string, now: Date): Promise<JsonObject> {
    const verified = async (renewed: boolean) =>
      jwtVerify(token, await this.#keys(now, renewed), {
        algorithms,
        currentDate: now,
        clockTolerance: clockToleranceSeconds,
        requiredClaims: ['exp'],
      });
    try {
      const { payload } = await verified(false).catch((thrown: unknown) => {
        if (this.#pinned !== undefined || !isUnknownKey(thrown)) throw thrown;
        return verified(true);
      });
      return payload as unknown as JsonObject;
    } catch (cause) {
      if (cause instanceof SealpodError) throw cause;
      throw new SealpodError('EV_SIGNATURE', 'the token of a verification service does not verify', {
        expected: `a current token signed by ${this.name}`,
        actual: cause instanceof Error ? cause.message : String(cause),
        cause,
      });
    }
  }

  async #keys(now: Date, renewed: boolean): Promise<JWTVerifyGetKey> {
    const { keys } = this.#config;
    if (this.#pinned !== undefined || 'text' in keys) return this.#pinned ?? keySet('text' in keys ? keys.text : '');
    const age = this.#published === undefined ? Number.POSITIVE_INFINITY : now.getTime() - this.#published.at;
    const fresh = age >= 0 && age < (renewed ? keysCooldownMs : keysLifetimeMs);
    if (fresh && this.#published !== undefined) return this.#published.find;
    const { status, body } = await askService({ method: 'GET', url: keys.url }, this.#limits);
    const find = this.#unavailable(`status ${status} for its keys`, () => {
      if (status !== 200) throw new RangeError('no keys');
      return keySet(body.toString('utf8'));
    });
    this.#published = { find, at: now.getTime() };
    return find;
  }
}

/** @throws SealpodError USAGE for what is no key set */
function keySet(text: string): JWTVerifyGetKey {
  try {
    return createLocalJWKSet(asJsonObject(parseJson(text, { what: 'key set' }), 'key set') as unknown as JSONWebKeySet);
  } catch (cause) {
    const { message } = asSealpodError(cause);
    throw new SealpodError('USAGE', `the keys of Intel Trust Authority are no JWK set: ${message}`, { cause });
  }
}

function isUnknownKey(thrown: unknown): boolean {
  return thrown instanceof Error && 'code' in thrown && thrown.code === 'ERR_JWKS_NO_MATCHING_KEY';
}
