import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  parseJson,
  stringMember,
} from '../json/index.ts';
import { isReasonCode, type ReasonCode } from '../reason-codes.ts';
import { parseTeePubKey, type TeePubKey } from './tee-pubkey.ts';

/** The one RCAR version of upstream's KBS and clients. */
export const protocolVersion = '0.4.0';

/** Client → KBS, `POST /kbs/v0/auth`. Not verified by parsing: `version`, `tee`. */
export interface Request {
  readonly version: string;
  readonly tee: string;
  /** Any JSON; upstream sends `{"supported-hash-algorithms": […]}` or `""`. */
  readonly extraParams: JsonValue;
}

/** KBS → client. For generic TEEs `extraParams` is the empty string. */
export interface Challenge {
  readonly nonce: string;
  readonly extraParams: JsonValue;
}

/** Initdata as it travels: the text must stay byte for byte what was measured. */
export interface InitData {
  readonly format: string;
  readonly body: string;
}

/** Client → KBS, `POST /kbs/v0/attest`. Nothing in it is verified by parsing. */
export interface Attestation {
  readonly initData?: InitData;
  readonly runtimeData: { readonly nonce: string; readonly teePubKey: TeePubKey };
  readonly teeEvidence: {
    readonly primaryEvidence: JsonValue;
    /** Empty, or the JSON text of a map TEE → evidence; hashed exactly as received. */
    readonly additionalEvidence: string;
  };
}

/** Body of a refused request: upstream's two members and ours. */
export interface ErrorInformation {
  /** `https://github.com/confidential-containers/kbs/errors/<Variant>` */
  readonly type: string;
  readonly detail: string;
  readonly code?: ReasonCode;
  readonly correlationId?: string;
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseRequest(body: string | Uint8Array): Request {
  const root = asJsonObject(parseJson(body, { what: 'request', maxSize: 256 * 1024 }), 'request');
  return { version: stringMember(root, 'version'), tee: stringMember(root, 'tee'), extraParams: extraParamsOf(root) };
}

/** The JSON text of a Request. */
export function serializeRequest(request: Request): string {
  return JSON.stringify({ version: request.version, tee: request.tee, 'extra-params': request.extraParams });
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseChallenge(body: string | Uint8Array): Challenge {
  const root = asJsonObject(parseJson(body, { what: 'challenge', maxSize: 256 * 1024 }), 'challenge');
  return { nonce: stringMember(root, 'nonce'), extraParams: extraParamsOf(root) };
}

/** The JSON text of a Challenge. */
export function serializeChallenge(challenge: Challenge): string {
  return JSON.stringify({ nonce: challenge.nonce, 'extra-params': challenge.extraParams });
}

function extraParamsOf(root: JsonObject): JsonValue {
  const value = optionalMember(root, 'extra-params');
  if (value === undefined) throw new SealpodError('REQUEST_FORMAT', 'extra-params is missing');
  return value;
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE (beyond 2 MiB unless `maxSize` is given) */
export function parseAttestation(body: string | Uint8Array, maxSize = 2 * 1024 * 1024): Attestation {
  const root = asJsonObject(parseJson(body, { what: 'attestation', maxSize }), 'attestation');
  const runtimeData = objectMember(root, 'runtime-data');
  const evidence = objectMember(root, 'tee-evidence');
  const primaryEvidence = optionalMember(evidence, 'primary_evidence');
  if (primaryEvidence === undefined) throw new SealpodError('REQUEST_FORMAT', 'primary_evidence is missing');
  const initData = parseInitData(optionalMember(root, 'init-data'));
  return {
    ...(initData === undefined ? {} : { initData }),
    runtimeData: {
      nonce: stringMember(runtimeData, 'nonce'),
      teePubKey: parseTeePubKey(optionalMember(runtimeData, 'tee-pubkey')),
    },
    teeEvidence: { primaryEvidence, additionalEvidence: stringMember(evidence, 'additional_evidence') },
  };
}

function parseInitData(value: JsonValue | undefined): InitData | undefined {
  if (value === undefined || value === null) return undefined;
  const member = asJsonObject(value, 'init-data');
  return { format: stringMember(member, 'format'), body: stringMember(member, 'body') };
}

/** The JSON text of an Attestation, members and their order as upstream's client writes them. */
export function serializeAttestation({ initData, runtimeData, teeEvidence }: Attestation): string {
  return JSON.stringify({
    'init-data': initData === undefined ? null : { format: initData.format, body: initData.body },
    'runtime-data': { nonce: runtimeData.nonce, 'tee-pubkey': runtimeData.teePubKey },
    'tee-evidence': {
      primary_evidence: teeEvidence.primaryEvidence,
      additional_evidence: teeEvidence.additionalEvidence,
    },
  });
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function parseErrorInformation(body: string | Uint8Array): ErrorInformation {
  const root = asJsonObject(parseJson(body, { what: 'error information', maxSize: 64 * 1024 }), 'error information');
  const code = optionalMember(root, 'code');
  const correlationId = optionalMember(root, 'correlation-id');
  return {
    type: stringMember(root, 'type'),
    detail: asJsonText(optionalMember(root, 'detail'), 'detail'),
    ...(typeof code === 'string' && isReasonCode(code) ? { code } : {}),
    ...(typeof correlationId === 'string' ? { correlationId } : {}),
  };
}

/** The JSON text of an error: `type`, `detail`, then `code` and `correlation-id` where known. */
export function serializeErrorInformation({ type, detail, code, correlationId }: ErrorInformation): string {
  return JSON.stringify({ type, detail, code, 'correlation-id': correlationId });
}
