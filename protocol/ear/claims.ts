import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  integerMember,
  type JsonObject,
  objectMember,
  optionalMember,
  stringMember,
} from '../json/index.ts';
import { parseTeePubKey, type TeePubKey } from '../rcar/index.ts';
import { type EarStatus, isTrustClaim, type TrustClaim, type TrustVector } from './trust-vector.ts';

export type { EarStatus } from './trust-vector.ts';

/** One submodule of an EAR; extensions of policies stand beside these members. */
export interface Appraisal {
  readonly 'ear.status': EarStatus;
  readonly 'ear.trustworthiness-vector': TrustVector;
  readonly 'ear.appraisal-policy-id': string;
  readonly 'ear.veraison.annotated-evidence': JsonObject;
  readonly [extension: string]: unknown;
}

/** Payload of an EAR as a JWT (draft-ietf-rats-ear), with upstream's members and our `jti`. */
export interface EarClaims {
  readonly eat_profile: string;
  /** Seconds since the epoch. */
  readonly iat: number;
  readonly 'ear.verifier-id': { readonly developer: string; readonly build: string };
  readonly submods: Readonly<Record<string, Appraisal>>;
  readonly exp: number;
  readonly iss: string;
  /** Whom the token is for; absent in upstream's tokens. */
  readonly aud?: string;
  /** Correlation id of the session; absent in upstream's tokens. */
  readonly jti?: string;
}

/**
 * Reads the payload of a token whose signature has been verified.
 *
 * Not verified: dates, issuer, that the status fits the vector.
 *
 * @throws SealpodError TOKEN_INVALID
 */
export function parseEarClaims(payload: JsonObject): EarClaims {
  const code = 'TOKEN_INVALID';
  const verifier = objectMember(payload, 'ear.verifier-id', code);
  const jti = optionalMember(payload, 'jti');
  const submods: Record<string, Appraisal> = {};
  for (const [name, member] of Object.entries(objectMember(payload, 'submods', code))) {
    const appraisal = asJsonObject(member, `submods.${name}`, code);
    submods[name] = {
      ...appraisal,
      'ear.status': parseStatus(stringMember(appraisal, 'ear.status', code)),
      'ear.trustworthiness-vector': parseVector(optionalMember(appraisal, 'ear.trustworthiness-vector') ?? {}),
      'ear.appraisal-policy-id': stringMember(appraisal, 'ear.appraisal-policy-id', code),
      'ear.veraison.annotated-evidence': objectMember(appraisal, 'ear.veraison.annotated-evidence', code),
    };
  }
  return {
    eat_profile: stringMember(payload, 'eat_profile', code),
    iat: integerMember(payload, 'iat', code),
    'ear.verifier-id': {
      developer: stringMember(verifier, 'developer', code),
      build: stringMember(verifier, 'build', code),
    },
    submods,
    exp: integerMember(payload, 'exp', code),
    iss: stringMember(payload, 'iss', code),
    ...(typeof jti === 'string' ? { jti } : {}),
  };
}

function parseStatus(text: string): EarStatus {
  if (text === 'none' || text === 'affirming' || text === 'warning' || text === 'contraindicated') return text;
  throw new SealpodError('TOKEN_INVALID', 'unknown ear.status', { actual: text });
}

function parseVector(value: JsonObject[string]): TrustVector {
  const vector: Partial<Record<TrustClaim, number>> = {};
  const object = asJsonObject(value, 'ear.trustworthiness-vector', 'TOKEN_INVALID');
  for (const name of Object.keys(object)) {
    if (!isTrustClaim(name)) throw new SealpodError('TOKEN_INVALID', 'unknown trust claim', { actual: name });
    vector[name] = integerMember(object, name, 'TOKEN_INVALID');
  }
  return vector;
}

/** The TEE key inside the annotated evidence of `cpu0`, where upstream's KBS looks for it too; undefined where absent. */
export function teePubKeyOfEar(claims: EarClaims): TeePubKey | undefined {
  const runtimeData = claims.submods['cpu0']?.['ear.veraison.annotated-evidence']['runtime_data_claims'];
  if (typeof runtimeData !== 'object' || runtimeData === null || Array.isArray(runtimeData)) return undefined;
  const key = optionalMember(runtimeData as JsonObject, 'tee-pubkey');
  return key === undefined ? undefined : parseTeePubKey(key);
}
