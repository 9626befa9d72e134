import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  type JsonObject,
  objectMember,
  optionalMember,
  parseJson,
  stringArrayMember,
  stringMember,
} from '@sealpod/protocol/json';
import { askService, type ServiceAnswer, type ServiceHttpOptions } from './http.ts';

/** A Veraison service, as far as a relying party needs it. */
export interface VeraisonService {
  /** For explanations. */
  readonly name: string;
  /**
   * Has evidence appraised in a session of its own (challenge-response API).
   *
   * @param mediaType chooses one of the types that the service accepts for the evidence
   *
   * @returns the attestation result, a JWT that nobody has verified
   * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where the service cannot be asked, EV_REFUSED where it refuses
   */
  appraise(
    evidence: Uint8Array,
    mediaType: (accepted: readonly string[]) => string,
    nonce: Uint8Array,
  ): Promise<string>;
  /** The key that the service says its results are signed by (discovery API), a JWK. */
  resultKey(): Promise<JsonObject>;
}

/** How long a result may be waited for. */
export interface VeraisonOptions extends ServiceHttpOptions {
  /** Questions whether a result is there, at most; default 20. */
  readonly polls?: number;
  /** Pause between them; milliseconds, default 500. */
  readonly pollPauseMs?: number;
}

const sessionType = 'application/vnd.veraison.challenge-response-session+json';
const discoveryType = 'application/vnd.veraison.discovery+json';
const defaultSessionPath = '/challenge-response/v1/newSession';
const discoveryLifetimeMs = 300_000;
const code = 'EV_COLLATERAL_UNAVAILABLE';

interface Discovery {
  readonly key?: JsonObject;
  readonly sessionUrl: string;
}

/** The client of a service at `url` (veraison/docs: api/challenge-response, api/well-known). */
export function veraisonService(url: string, options: VeraisonOptions = {}): VeraisonService {
  const base = new URL(url);
  let known: { readonly until: number; readonly discovery: Promise<Discovery> } | undefined;
  const discover = (): Promise<Discovery> => {
    if (known === undefined || known.until < Date.now()) {
      const discovery = fetchDiscovery(base, options);
      known = { until: Date.now() + discoveryLifetimeMs, discovery };
      // A failure is not kept: the next caller asks again.
      discovery.catch(() => {
        known = undefined;
      });
    }
    return known.discovery;
  };
  return {
    name: `Veraison service ${base.origin}`,
    async appraise(evidence, mediaType, nonce) {
      const { sessionUrl } = await discover();
      const { session, accepted } = await openSession(sessionUrl, nonce, options);
      try {
        return await submit(session, evidence, mediaType(accepted), options);
      } finally {
        // Sessions also expire by themselves, so that a failure here changes nothing.
        await askService({ method: 'DELETE', url: session }, { ...options, retries: 0 }).catch(() => undefined);
      }
    },
    async resultKey() {
      const { key } = await discover();
      if (key === undefined)
        throw new SealpodError(code, 'the verification service publishes no key', { expected: 'ear-verification-key' });
      return key;
    },
  };
}

async function fetchDiscovery(base: URL, options: VeraisonOptions): Promise<Discovery> {
  const url = new URL('/.well-known/veraison/verification', base).href;
  const answer = await askService({ method: 'GET', url, headers: { accept: discoveryType } }, options);
  const document = readAnswer(answer, 200, 'discovery');
  const endpoints = optionalMember(document, 'api-endpoints');
  const path =
    endpoints === undefined
      ? defaultSessionPath
      : stringMember(asJsonObject(endpoints, 'api-endpoints', code), 'newChallengeResponseSession', code);
  return {
    // Only a path is taken: the document must not send evidence to another host.
    sessionUrl: sameOrigin(path, base),
    ...(optionalMember(document, 'ear-verification-key') === undefined
      ? {}
      : { key: objectMember(document, 'ear-verification-key', code) }),
  };
}

interface Session {
  readonly session: string;
  readonly accepted: readonly string[];
}

async function openSession(sessionUrl: string, nonce: Uint8Array, options: VeraisonOptions): Promise<Session> {
  const open = (text: string): Promise<ServiceAnswer> => {
    const url = new URL(sessionUrl);
    url.searchParams.set('nonce', text);
    return askService({ method: 'POST', url: url.href, headers: { accept: sessionType } }, options);
  };
  let answer = await open(Buffer.from(nonce).toString('base64url'));
  // Earlier releases want the padding that later ones refuse.
  if (answer.status === 400) answer = await open(base64UrlPadded(nonce));
  const session = readAnswer(answer, 201, 'new session');
  if (answer.location === undefined) throw new SealpodError(code, 'the verification service names no session');
  if (!Buffer.from(stringMember(session, 'nonce', code), 'base64').equals(nonce))
    throw new SealpodError('EV_NONCE_MISMATCH', 'the verification service changed the nonce');
  return {
    // Joined to the request's own URL: Veraison answers with a path relative to it.
    session: sameOrigin(answer.location, new URL(sessionUrl)),
    accepted: optionalMember(session, 'accept') === undefined ? [] : stringArrayMember(session, 'accept', code),
  };
}

async function submit(
  session: string,
  evidence: Uint8Array,
  mediaType: string,
  options: VeraisonOptions,
): Promise<string> {
  const { polls = 20, pollPauseMs = 500 } = options;
  let answer = await askService(
    { method: 'POST', url: session, headers: { accept: sessionType, 'content-type': mediaType }, body: evidence },
    options,
  );
  for (let poll = 0; poll < polls; poll += 1) {
    if (answer.status !== 200 && answer.status !== 202) readAnswer(answer, 200, 'evidence');
    const state = readAnswer(answer, answer.status, 'evidence');
    // `status` in the implementation, `state` in its documentation.
    const status = stringMember(state, optionalMember(state, 'status') === undefined ? 'state' : 'status', code);
    if (status === 'complete') return stringMember(state, 'result', code);
    if (status === 'failed') throw new SealpodError('EV_REFUSED', 'the verification service could not appraise it');
    await delay(pollPauseMs);
    answer = await askService({ method: 'GET', url: session, headers: { accept: sessionType } }, options);
  }
  throw new SealpodError(code, 'the verification service gave no result in time', { expected: `${polls} questions` });
}

/** The document of an answer; errors are problem details (RFC 9457). */
function readAnswer({ status, body }: ServiceAnswer, wanted: number, what: string): JsonObject {
  if (status !== wanted) {
    throw new SealpodError(
      status >= 400 && status < 500 ? 'EV_REFUSED' : code,
      `the verification service refused (${what})`,
      {
        expected: `status ${wanted}`,
        actual: `status ${status}: ${body.subarray(0, 300).toString('utf8')}`,
      },
    );
  }
  return asJsonObject(parseJson(body.toString('utf8'), { what, code }), what, code);
}

function sameOrigin(reference: string, base: URL): string {
  const url = new URL(reference, base);
  if (url.origin !== base.origin)
    throw new SealpodError(code, 'the verification service points elsewhere', {
      expected: base.origin,
      actual: url.origin,
    });
  return url.href;
}

function base64UrlPadded(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}
