import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  type JsonValue,
  optionalMember,
  parseJson,
} from '@sealpod/protocol/json';
import type { NvidiaArchitecture } from '@sealpod/protocol/nvidia';
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { getCollateral } from '../http-client.ts';

/** One device for the service: report and PEM chain, base64. */
export interface RemoteDevice {
  readonly evidence: string;
  readonly certificate: string;
}

/** Where NVIDIA's remote attestation service is. */
export interface RemoteServiceOptions {
  /** Up to `/gpu` and `/switch`; NVIDIA's own by default. */
  readonly url?: string;
  /** Key set of the tokens; default `/.well-known/jwks.json` of the service's origin. */
  readonly jwksUrl?: string;
  /** Issuer that tokens must name; any that the key set's keys sign for by default. */
  readonly issuer?: string;
  /** Bearer of `Authorization`, where the service asks for one. */
  readonly serviceKey?: string;
  /** Milliseconds; default 30 000. */
  readonly timeoutMs?: number;
}

/** NVIDIA's remote attestation service. */
export interface RemoteService {
  readonly name: string;
  /**
   * Claims of each device, in their order, from tokens whose signatures, dates and nonce were verified.
   *
   * @param nonce hexadecimal
   * @throws SealpodError EV_COLLATERAL_UNAVAILABLE, EV_REFUSED, EV_SIGNATURE, EV_BINDING_MISMATCH
   */
  attest(
    architecture: NvidiaArchitecture,
    nonce: string,
    devices: readonly RemoteDevice[],
    now: Date,
  ): Promise<JsonObject[]>;
}

const defaultUrl = 'https://nras.attestation.nvidia.com/v4/attest';
const maxAnswerBytes = 1024 * 1024;
const keyLifetimeMs = 3_600_000;
const keyPauseMs = 30_000;
const unavailable = 'EV_COLLATERAL_UNAVAILABLE';

/**
 * A client of NVIDIA's remote attestation service (NRAS, v4 of its interface): all devices of an architecture in one request. The
 * key set is kept for an hour, and asked for again where a token names a key that is not in it.
 */
export function remoteService(options: RemoteServiceOptions = {}): RemoteService {
  const base = (options.url ?? defaultUrl).replace(/\/+$/, '');
  const keys = keySet(options.jwksUrl ?? `${new URL(base).origin}/.well-known/jwks.json`);
  return {
    name: `remote attestation service ${base}`,
    async attest(architecture, nonce, devices, now) {
      const kind = architecture === 'LS10' ? 'switch' : 'gpu';
      const request = { nonce, arch: architecture, evidence_list: devices, claims_version: '3.0' };
      const { overall, perDevice } = parseAnswer(await post(`${base}/${kind}`, JSON.stringify(request), options));
      if (perDevice.length !== devices.length)
        throw new SealpodError('EV_REFUSED', 'the service told of another number of devices', {
          expected: `${devices.length}`,
          actual: `${perDevice.length}`,
        });
      const verifyToken = (token: string): Promise<JsonObject> => verifyClaims(token, keys, options.issuer, nonce, now);
      const { 'x-nvidia-overall-att-result': result } = await verifyToken(overall);
      const claims = await Promise.all(perDevice.map(verifyToken));
      return claims.map((own) => ({
        ...own,
        ...(result === undefined ? {} : { 'x-nvidia-overall-att-result': result }),
      }));
    },
  };
}

async function post(
  url: string,
  body: string,
  { timeoutMs = 30_000, serviceKey }: RemoteServiceOptions,
): Promise<JsonValue> {
  let response: Response;
  const chunks: Uint8Array[] = [];
  try {
    response = await fetch(url, {
      method: 'POST',
      body,
      headers: {
        'content-type': 'application/json',
        ...(serviceKey === undefined ? {} : { authorization: `Bearer ${serviceKey}` }),
      },
      signal: AbortSignal.timeout(timeoutMs),
      redirect: 'error',
    });
    let length = 0;
    for await (const chunk of response.body ?? []) {
      length += chunk.length;
      if (length > maxAnswerBytes) throw new RangeError(`an answer larger than ${maxAnswerBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (cause) {
    throw new SealpodError(unavailable, 'the remote attestation service could not be asked', {
      cause,
      expected: `an answer from ${url}`,
      actual: cause instanceof Error ? cause.message : String(cause),
    });
  }
  if (response.status !== 200)
    throw new SealpodError(
      response.status >= 500 || response.status === 429 ? unavailable : 'EV_REFUSED',
      'the remote attestation service refuses',
      {
        expected: `status 200 from ${url}`,
        actual: `status ${response.status}`,
      },
    );
  return parseJson(Buffer.concat(chunks), { what: 'answer of the remote attestation service', code: unavailable });
}

/** `[["JWT", <overall>], {"GPU-0": <token>, …}]`; devices by the number in their names. */
function parseAnswer(answer: JsonValue): { readonly overall: string; readonly perDevice: readonly string[] } {
  const [overall, detached] = Array.isArray(answer) ? (answer as JsonValue[]) : [];
  const [type, token] = Array.isArray(overall) ? (overall as JsonValue[]) : [];
  if (type !== 'JWT')
    throw new SealpodError(unavailable, 'the answer of the remote attestation service is of another form', {
      expected: 'a detached EAT bundle',
    });
  const number = (name: string): number => Number(/-(\d+)$/.exec(name)?.[1] ?? Number.NaN);
  const entries = Object.entries(asJsonObject(detached, 'detached tokens', unavailable)).sort(
    ([left], [right]) => number(left) - number(right),
  );
  return {
    overall: asJsonText(token, 'overall token', unavailable),
    perDevice: entries.map(([name, value]) => asJsonText(value, name, unavailable)),
  };
}

async function verifyClaims(
  token: string,
  keys: JWTVerifyGetKey,
  issuer: string | undefined,
  nonce: string,
  now: Date,
): Promise<JsonObject> {
  let payload: JsonObject;
  try {
    const verified = await jwtVerify(token, keys, {
      algorithms: ['ES384'],
      currentDate: now,
      clockTolerance: 60,
      requiredClaims: ['exp', 'iss'],
      ...(issuer === undefined ? {} : { issuer }),
    });
    payload = verified.payload as JsonObject;
  } catch (cause) {
    if (cause instanceof SealpodError) throw cause;
    const expired = cause instanceof errors.JWTExpired;
    throw new SealpodError(
      expired ? 'EV_COLLATERAL_EXPIRED' : 'EV_SIGNATURE',
      'a token of the remote attestation service does not verify',
      {
        cause,
        expected: 'ES384 by a key of its key set, within its dates',
        actual: cause instanceof Error ? cause.message : String(cause),
      },
    );
  }
  if (optionalMember(payload, 'eat_nonce') !== nonce)
    throw new SealpodError('EV_BINDING_MISMATCH', 'a token of the remote attestation service is about another nonce', {
      expected: nonce,
      actual: JSON.stringify(payload['eat_nonce'] ?? null).slice(0, 200),
    });
  return payload;
}

function keySet(url: string): JWTVerifyGetKey {
  let known: { readonly at: number; readonly get: JWTVerifyGetKey } | undefined;
  let underway: Promise<JWTVerifyGetKey> | undefined;
  const load = async (): Promise<JWTVerifyGetKey> => {
    const answer = await getCollateral(url);
    if (answer === undefined) throw new SealpodError(unavailable, 'there is no key set', { expected: url });
    const set = parseJson(answer.body, { what: 'key set of the remote attestation service', code: unavailable });
    const get = createLocalJWKSet(set as unknown as JSONWebKeySet);
    known = { at: Date.now(), get };
    return get;
  };
  const fresh = (): Promise<JWTVerifyGetKey> => {
    underway ??= load().finally(() => {
      underway = undefined;
    });
    return underway;
  };
  return async (header, token) => {
    const held = known !== undefined && Date.now() - known.at < keyLifetimeMs ? known : undefined;
    const get = held?.get ?? (await fresh());
    try {
      return await get(header, token);
    } catch (error) {
      const mayAskAgain = held !== undefined && Date.now() - held.at > keyPauseMs;
      if (!(error instanceof errors.JWKSNoMatchingKey && mayAskAgain)) throw error;
      return (await fresh())(header, token);
    }
  };
}
