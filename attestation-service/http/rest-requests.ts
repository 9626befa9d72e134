import { asSealpodError } from '@sealpod/protocol/errors';
import { decodeBase64Url, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import { isHashAlgorithm, isTee } from '@sealpod/protocol/rcar';
import type { EvidenceToEvaluate } from '../evidence.ts';
import { FailedStep, UnreadableRequest } from './rest-error.ts';

/** Requests of upstream's RESTful-AS (trustee: `/attestation`, `/policy`, `/challenge`). */
export interface AttestationBody {
  readonly evidences: readonly EvidenceToEvaluate[];
  readonly policyIds: readonly string[];
}

const maxRequests = 16;

/** Reads a JSON body. @throws UnreadableRequest */
export function readJson(bytes: Buffer): JsonValue {
  if (bytes.length === 0) throw new UnreadableRequest('EOF while parsing a value at line 1 column 0');
  try {
    return parseJson(bytes, { what: 'request', maxSize: bytes.length });
  } catch (thrown) {
    const { message } = asSealpodError(thrown);
    throw new UnreadableRequest(message.endsWith('not valid JSON') ? 'expected value' : message);
  }
}

/** @throws UnreadableRequest where members are missing or of another type; FailedStep where one cannot be decoded */
export function readAttestation(body: JsonValue): AttestationBody {
  const root = structure(body, 'AttestationRequest', 2);
  const requests = sequence(root, 'verification_requests');
  const policyIds = sequence(root, 'policy_ids').map((id) => text(id));
  // All of the structure is read before anything in it is decoded.
  const shapes = requests.map(readShape);
  if (shapes.length > maxRequests)
    throw new FailedStep('attestation report evaluate', [`more than ${maxRequests} verification requests`]);
  return { evidences: shapes.map(decode), policyIds };
}

/** @throws UnreadableRequest */
export function readPolicy(body: JsonValue): { readonly id: string; readonly policy: string } {
  const root = structure(body, 'SetPolicyInput', 2);
  return { id: text(required(root, 'policy_id')), policy: text(required(root, 'policy')) };
}

/** The Rego text of an uploaded policy. @throws FailedStep */
export function decodePolicy(policy: string): string {
  return decoded(policy, 'set policy', []).toString('utf8');
}

/** @throws UnreadableRequest, FailedStep */
export function readChallenge(body: JsonValue): { readonly tee: string; readonly tee_params: string } {
  const members = Object.fromEntries(
    Object.entries(structure(body, 'ChallengeRequest', 1)).map(([name, value]) => [name, text(value)]),
  );
  const { tee, tee_params: parameters } = members;
  if (tee === undefined) throw new FailedStep('Failed to get inner tee');
  if (parameters === undefined) throw new FailedStep('Failed to get inner tee_params');
  if (!isTee(tee)) throw new FailedStep(`tee \`${tee.slice(0, 32)} not supported\``, [], 'EV_TEE_UNSUPPORTED');
  return { tee, tee_params: parameters };
}

interface Shape {
  readonly tee: string;
  readonly evidence: string;
  readonly runtimeData?: { readonly kind: 'raw' | 'structured'; readonly value: JsonValue };
  readonly initData?: { readonly kind: 'init_data_digest' | 'init_data_toml'; readonly value: string };
  readonly algorithm?: string;
}

function readShape(value: JsonValue): Shape {
  const request = structure(value, 'IndividualAttestationRequest', 5);
  const runtimeData = variant(request, 'runtime_data', ['raw', 'structured']);
  const initData = variant(request, 'init_data', ['init_data_digest', 'init_data_toml']);
  const algorithm = optional(request, 'runtime_data_hash_algorithm');
  return {
    tee: text(required(request, 'tee')),
    evidence: text(required(request, 'evidence')),
    ...(runtimeData === undefined ? {} : { runtimeData }),
    ...(initData === undefined ? {} : { initData: { kind: initData.kind, value: text(initData.value) } }),
    ...(algorithm === undefined ? {} : { algorithm: text(algorithm) }),
  };
}

function decode({ tee, evidence, runtimeData, initData, algorithm = 'sha384' }: Shape): EvidenceToEvaluate {
  if (!isTee(tee)) throw new FailedStep(`tee \`${tee.slice(0, 32)} not supported\``, [], 'EV_TEE_UNSUPPORTED');
  const bytes = decoded(evidence, 'base64 decode evidence', []);
  const hashAlgorithm = algorithm.toLowerCase();
  if (!isHashAlgorithm(hashAlgorithm))
    throw new FailedStep('parse runtime data HashAlgorithm failed', ['Matching variant not found']);
  return {
    tee,
    evidence: evidenceJson(bytes),
    hashAlgorithm,
    ...(runtimeData === undefined ? {} : { runtimeData: decodeRuntimeData(runtimeData) }),
    ...(initData === undefined ? {} : { initData: decodeInitData(initData) }),
  };
}

function evidenceJson(bytes: Buffer): JsonValue {
  try {
    return parseJson(bytes, { what: 'evidence', maxSize: bytes.length });
  } catch (thrown) {
    throw new FailedStep('failed to parse evidence as JSON', [asSealpodError(thrown).message], 'EV_FORMAT');
  }
}

function decodeRuntimeData({ kind, value }: NonNullable<Shape['runtimeData']>) {
  if (kind === 'structured') {
    if (isObject(value)) return { structured: value };
    throw new FailedStep('decode given Runtime Data', ['structured runtime data is not an object']);
  }
  const what = 'base64 decode raw runtime data';
  return { raw: decoded(text(value), 'decode given Runtime Data', [`An internal error occured: ${what}`, what]) };
}

function decodeInitData({ kind, value }: NonNullable<Shape['initData']>) {
  if (kind === 'init_data_toml') return { toml: value };
  const what = 'base64 decode raw init data';
  return { digest: decoded(value, 'decode given Init Data', [`An internal error occured: ${what}`, what]) };
}

/** base64url without padding, as everywhere in this interface. */
function decoded(value: string, step: string, causes: readonly string[]): Buffer {
  try {
    return decodeBase64Url(value, { what: step, maxBytes: value.length });
  } catch (thrown) {
    const symbol = /[^A-Za-z0-9_-]/.exec(value);
    const padding = symbol?.[0] === '=' && /^=+$/.test(value.slice(symbol.index));
    const reason = padding
      ? 'Invalid padding'
      : symbol === null
        ? asSealpodError(thrown).message
        : `Invalid symbol ${value.charCodeAt(symbol.index)}, offset ${symbol.index}.`;
    throw new FailedStep(step, [...causes, reason]);
  }
}

function structure(value: JsonValue | undefined, name: string, members: number): JsonObject {
  if (isObject(value)) return value;
  if (Array.isArray(value))
    throw new UnreadableRequest(`invalid length ${value.length}, expected struct ${name} with ${members} elements`);
  throw new UnreadableRequest(`invalid type: ${typeName(value)}, expected struct ${name}`);
}

function required(object: JsonObject, name: string): JsonValue {
  const value = Object.hasOwn(object, name) ? object[name] : undefined;
  if (value === undefined) throw new UnreadableRequest(`missing field \`${name}\``);
  return value;
}

/** Absent and null are one, as in upstream's `Option`. */
function optional(object: JsonObject, name: string): JsonValue | undefined {
  return Object.hasOwn(object, name) ? (object[name] ?? undefined) : undefined;
}

function sequence(object: JsonObject, name: string): readonly JsonValue[] {
  const value = required(object, name);
  if (Array.isArray(value)) return value as readonly JsonValue[];
  throw new UnreadableRequest(`invalid type: ${typeName(value)}, expected a sequence`);
}

function text(value: JsonValue): string {
  if (typeof value === 'string') return value;
  throw new UnreadableRequest(`invalid type: ${typeName(value)}, expected a string`);
}

/** An externally tagged enum: an object of exactly one member. */
function variant<Kind extends string>(
  object: JsonObject,
  name: string,
  kinds: readonly Kind[],
): { readonly kind: Kind; readonly value: JsonValue } | undefined {
  const value = optional(object, name);
  if (value === undefined) return undefined;
  const [member, ...more] = Object.entries(structure(value, name, 1));
  if (member === undefined || more.length > 0) throw new UnreadableRequest('expected value');
  const kind = kinds.find((known) => known === member[0]);
  if (kind !== undefined) return { kind, value: member[1] };
  const expected = kinds.map((known) => `\`${known}\``).join(' or ');
  throw new UnreadableRequest(`unknown variant \`${member[0].slice(0, 64)}\`, expected ${expected}`);
}

function typeName(value: JsonValue | undefined): string {
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) return 'sequence';
  return { boolean: 'boolean', number: 'number', string: 'string', object: 'map' }[typeof value as string] ?? 'value';
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
