import type { AttestationService } from '../service.ts';

/** Where relying parties find the keys, under the issuer's URL (OpenID Connect Discovery 1.0 §4, RFC 8414). */
export const keySetPath = '/.well-known/jwks.json';
export const discoveryPath = '/.well-known/openid-configuration';

/**
 * The discovery document of a service at `origin`. There is no authorisation endpoint: tokens come from `/attestation`. Which
 * members must be there at all is OpenID's rule; the empty and single ones say what cannot be done here.
 */
export function discoveryDocument(origin: string, issuer: string): Readonly<Record<string, unknown>> {
  return {
    issuer,
    jwks_uri: `${origin}${keySetPath}`,
    response_types_supported: ['none'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
    claims_supported: ['iss', 'iat', 'exp', 'aud', 'jti', 'eat_profile', 'ear.verifier-id', 'submods'],
  };
}

/** The key set as JSON text; undefined where it cannot be read now. */
export async function keySetText(service: AttestationService): Promise<string | undefined> {
  try {
    return JSON.stringify(await service.jwks());
  } catch {
    return undefined;
  }
}
