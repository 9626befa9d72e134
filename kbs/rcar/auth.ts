import { randomBytes, randomUUID } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import { isTee, parseRequest, protocolVersion, type Request, serializeChallenge } from '@sealpod/protocol/rcar';
import { decide } from '../audit/log.ts';
import type { Parts } from '../parts.ts';
import type { Answer, Exchange } from '../server/exchange.ts';
import { Refusal } from './refusal.ts';
import { createSession, newSessionId, sessionCookie, sessionKey } from './sessions.ts';

const bodyLimit = 2 * 1024 * 1024;
const semanticVersion = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;

function authRefusal(code: ConstructorParameters<typeof Refusal>[0], detail: string, cause?: unknown): Refusal {
  return new Refusal(
    code,
    { variant: 'AttestationError', detail: `Attestation error: RCAR handshake Auth failed: ${detail}` },
    { cause },
  );
}

/** Throws a refusal where the version is not 0.4.0; build metadata is ignored (SemVer 2.0.0 §10). */
function checkVersion(version: string): void {
  const match = semanticVersion.exec(version);
  if (match === null) throw authRefusal('PROTOCOL_VERSION', 'failed to parse KBS version');
  const [, major, minor, patch, preRelease] = match;
  if (`${major}.${minor}.${patch}` === protocolVersion && preRelease === undefined) return;
  const shown = version.slice(0, 64);
  const detail = `KBS Client Protocol Version Mismatch: expect =${protocolVersion} while the request is ${shown}`;
  throw authRefusal('PROTOCOL_VERSION', detail);
}

function readRequest(body: Buffer): Request {
  try {
    const request = parseRequest(body);
    if (!isTee(request.tee)) throw new SealpodError('EV_TEE_UNSUPPORTED', 'the protocol knows no such TEE');
    return request;
  } catch (cause) {
    throw authRefusal(cause instanceof SealpodError ? cause.code : 'REQUEST_FORMAT', 'deserialize Request', cause);
  }
}

function tpmParameters(extraParams: JsonValue): JsonObject | undefined {
  if (typeof extraParams !== 'object' || extraParams === null || Array.isArray(extraParams)) return undefined;
  const tpm = (extraParams as JsonObject)['tpm'];
  return tpm === undefined ? undefined : asJsonObject(tpm, 'extra-params.tpm');
}

/**
 * What the challenge says beyond the nonce. A guest with a TPM that names its EK certificate and AK gets a credential
 * that only that TPM can open; all others get upstream's empty string.
 */
async function challengeParameters(parts: Parts, request: Request, nonce: string): Promise<JsonValue> {
  if (request.tee === 'se') return selectedHash(request.extraParams);
  if (request.tee !== 'tpm') return '';
  try {
    const tpm = tpmParameters(request.extraParams);
    if (tpm === undefined) return '';
    const parameters = JSON.stringify({
      nonce,
      'ek-certificate': tpm['ek-certificate'],
      'ak-public': tpm['ak-public'],
    });
    const challenge = await parts.attestation.challenge({ tee: 'tpm', tee_params: parameters });
    return { tpm: parseJson(challenge, { what: 'challenge of the attestation service', maxSize: 64 * 1024 }) };
  } catch (cause) {
    const code = cause instanceof SealpodError ? cause.code : 'INTERNAL';
    throw authRefusal(code, 'Attestation Service generate challenge failed', cause);
  }
}

/**
 * Evidence of IBM Secure Execution is bound by SHA-512. A guest that lists its algorithms is told so; one that lists none
 * gets upstream's empty string.
 */
function selectedHash(extraParams: JsonValue): JsonValue {
  if (typeof extraParams !== 'object' || extraParams === null || Array.isArray(extraParams)) return '';
  const supported = (extraParams as JsonObject)['supported-hash-algorithms'];
  if (supported === undefined) return '';
  const listed = Array.isArray(supported) && supported.some((name) => String(name).toLowerCase() === 'sha512');
  if (!listed) throw authRefusal('UNSUPPORTED', 'the guest does not support sha512, which its TEE needs');
  return { 'selected-hash-algorithm': 'sha512' };
}

/** The nonce: random, but for IBM Secure Execution, whose nonce is the request that its Ultravisor answers. */
async function newNonce(parts: Parts, { tee, extraParams }: Request): Promise<string> {
  if (tee !== 'se') return randomBytes(32).toString('base64');
  try {
    return await parts.attestation.challenge({ tee, tee_params: JSON.stringify(extraParams) });
  } catch (cause) {
    const code = cause instanceof SealpodError ? cause.code : 'INTERNAL';
    throw authRefusal(code, 'Attestation Service generate challenge failed', cause);
  }
}

/** `POST /kbs/v0/auth`: a challenge and a session that is fixed to the TEE and the nonce. */
export async function handleAuth(parts: Parts, exchange: Exchange): Promise<Answer> {
  parts.metrics.challenged();
  const correlationId = randomUUID();
  const request = readRequest(await exchange.body(bodyLimit));
  checkVersion(request.version);
  const nonce = await newNonce(parts, request);
  const extraParams = await challengeParameters(parts, request, nonce);
  const id = newSessionId();
  const now = parts.now();
  const expiresAt = now + parts.config.limits.sessionSeconds * 1000;
  await decide(parts.storage, async (transaction) => {
    await createSession(transaction, id, { state: 'challenged', tee: request.tee, nonce, correlationId, expiresAt });
    const subject = { tee: request.tee, session: sessionKey(id).slice(0, 16), remoteAddress: exchange.remoteAddress };
    const time = new Date(now).toISOString();
    return { decision: { correlationId, time, kind: 'auth', outcome: 'OK', subject }, result: undefined };
  });
  return {
    status: 200,
    correlationId,
    contentType: 'application/json',
    body: serializeChallenge({ nonce, extraParams }),
    headers: { 'set-cookie': sessionCookie(id, expiresAt, !parts.config.insecureHttp) },
    route: 'auth',
  };
}
