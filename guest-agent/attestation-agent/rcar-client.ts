import type { KeyObject } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeBase64Url, optionalMember, parseJson, stringMember } from '@sealpod/protocol/json';
import {
  type Challenge,
  generateTeeKey,
  negotiatedHashAlgorithm,
  parseChallenge,
  protocolVersion,
  runtimeDataDigest,
  serializeAttestation,
  serializeRequest,
} from '@sealpod/protocol/rcar';
import type { Attester } from '../attesters/attester.ts';
import type { HttpAnswer, HttpsRequest } from './pinned-https.ts';
import { correlationOf, refusal } from './refusal.ts';

/** What carries requests to the key broker; {@link PinnedHttps} in a guest. */
export interface BrokerConnection {
  send(request: HttpsRequest): Promise<HttpAnswer>;
}

/** An attestation token and the key that the broker encrypts to under it. */
export interface AttestationToken {
  /** JWT; its signature is the broker's business and is not verified here. */
  readonly token: string;
  readonly teeKey: KeyObject;
  /** Milliseconds that the token lives from when it was issued. */
  readonly lifetimeMs: number;
  /** What the broker knows the session by; upstream's says none. */
  readonly correlationId?: string;
}

export interface RcarClientOptions {
  readonly connection: BrokerConnection;
  readonly attester: Attester;
  /** Initdata document exactly as it was measured; none where the guest has none. */
  readonly initdata?: string;
  /** Makes the key that the broker encrypts to, anew for each session; EC P-256 by default, as upstream's client. */
  readonly newTeeKey?: typeof generateTeeKey;
  /** Attempts where the broker cannot be reached or has lost the session, and the pause between them. */
  readonly attempts?: number;
  readonly retryDelayMs?: number;
}

/** `User-Agent` of upstream's client. */
export const userAgent = 'attestation-agent-kbs-client/0.1.0';
const jsonHeaders = { 'content-type': 'application/json', accept: '*/*', 'user-agent': userAgent };
const supportedHashAlgorithms = ['sha256', 'sha384', 'sha512'];
const defaultLifetimeMs = 5 * 60_000;
/** No further attempt begins later than this, so that a caller with a deadline hears the reason. */
const retryWindowMs = 15_000;

/**
 * One RCAR handshake (protocol 0.4.0): request, challenge, attestation, token.
 *
 * A broker that cannot be reached, or that has forgotten the session between challenge and attestation (a replica went
 * away), is asked again; a refusal is final.
 *
 * @throws SealpodError of the broker's reason with its correlation id; KBS_UNREACHABLE, KBS_KEY, TEE_*, EV_AK_UNTRUSTED
 */
export async function attest(options: RcarClientOptions): Promise<AttestationToken> {
  const attempts = options.attempts ?? 5;
  const deadline = performance.now() + retryWindowMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await handshake(options);
    } catch (error) {
      const again =
        error instanceof SealpodError && (error.code === 'KBS_UNREACHABLE' || error.code === 'SESSION_UNKNOWN');
      if (!again || attempt >= attempts || performance.now() > deadline) throw error;
      await delay(options.retryDelayMs ?? 1000);
    }
  }
}

async function handshake(options: RcarClientOptions): Promise<AttestationToken> {
  const { connection, attester } = options;
  const [extraParams, { privateKey, teePubKey }] = await Promise.all([
    attester.prepare(),
    (options.newTeeKey ?? generateTeeKey)(),
  ]);
  const { challenge, cookie } = await requestChallenge(connection, {
    version: protocolVersion,
    tee: attester.tee,
    extraParams: { 'supported-hash-algorithms': supportedHashAlgorithms, ...extraParams },
  });
  const additionalEvidence = '';
  const runtimeData = { nonce: challenge.nonce, teePubKey };
  const reportData = runtimeDataDigest(
    { ...runtimeData, additionalEvidence },
    negotiatedHashAlgorithm(challenge.extraParams),
  );
  const answer = await connection.send({
    method: 'POST',
    path: '/kbs/v0/attest',
    headers: { ...jsonHeaders, cookie },
    body: serializeAttestation({
      ...(options.initdata === undefined ? {} : { initData: { format: 'toml', body: options.initdata } }),
      runtimeData,
      teeEvidence: {
        primaryEvidence: await attester.evidence(reportData, challenge.extraParams),
        additionalEvidence,
      },
    }),
  });
  if (answer.status !== 200) throw refusal(answer, 'EV_REFUSED', 'the key broker refused the attestation');
  const token = stringMember(asJsonObject(parseJson(answer.body, { what: 'token answer' }), 'token answer'), 'token');
  const correlationId = correlationOf(answer);
  return {
    token,
    teeKey: privateKey,
    lifetimeMs: lifetimeOf(token),
    ...(correlationId === undefined ? {} : { correlationId }),
  };
}

async function requestChallenge(
  connection: BrokerConnection,
  request: Parameters<typeof serializeRequest>[0],
): Promise<{ challenge: Challenge; cookie: string }> {
  const body = serializeRequest(request);
  const answer = await connection.send({ method: 'POST', path: '/kbs/v0/auth', headers: jsonHeaders, body });
  if (answer.status !== 200) throw refusal(answer, 'EV_REFUSED', 'the key broker refused to start a session');
  return { challenge: parseChallenge(answer.body), cookie: sessionCookie(answer) };
}

/** The session cookie as the broker named it; its attributes are for browsers. */
function sessionCookie(answer: HttpAnswer): string {
  for (const line of answer.headers['set-cookie'] ?? []) {
    const pair = /^\s*(kbs-session-id=[^;\s]{1,4096})/.exec(line)?.[1];
    if (pair !== undefined) return pair;
  }
  throw new SealpodError('REQUEST_FORMAT', 'the challenge came without a session cookie');
}

/**
 * Milliseconds from `iat` to `exp`. A duration rather than a date: the guest's clock is the host's, so it is measured with
 * the monotonic clock from the moment the token came.
 */
function lifetimeOf(token: string): number {
  const [, payload] = token.split('.');
  if (payload === undefined) throw new SealpodError('TOKEN_INVALID', 'the key broker sent no JWT');
  const bytes = decodeBase64Url(payload, { what: 'token payload', code: 'TOKEN_INVALID' });
  const claims = asJsonObject(parseJson(bytes, { what: 'token payload' }), 'token payload');
  const exp = optionalMember(claims, 'exp');
  const iat = optionalMember(claims, 'iat');
  if (typeof exp !== 'number') throw new SealpodError('TOKEN_INVALID', 'the token of the key broker has no exp');
  if (typeof iat !== 'number') return defaultLifetimeMs;
  return Math.max(0, (exp - iat) * 1000);
}
