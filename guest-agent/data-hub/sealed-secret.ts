import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  decodeBase64Url,
  type JsonObject,
  objectMember,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';
import { parseResourceUri, type ResourceUri } from '@sealpod/protocol/resource-uri';

const prefix = 'sealed.';
const maxSecretBytes = 64 * 1024;
const payloadVersion = '0.1.0';

/** A sealed secret of type vault: it names the resource that holds the value. Its signature is not verified yet. */
export interface SealedSecret {
  readonly header: JsonObject;
  /** What the signature covers: `header.payload` in ASCII. */
  readonly signed: string;
  readonly signature: Buffer;
  readonly payload: string;
}

/**
 * Splits a sealed secret: compact JWS, with or without `sealed.` in front (any number of times, as upstream).
 *
 * @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE
 */
export function parseSealedSecret(text: string): SealedSecret {
  const [header, payload, signature] = sections(stripPrefix(text), 3);
  const headerBytes = decodeBase64Url(header, { what: 'sealed secret header', maxBytes: 4096 });
  return {
    header: asJsonObject(parseJson(headerBytes, { what: 'sealed secret header', maxDepth: 4 }), 'sealed secret header'),
    signed: `${header}.${payload}`,
    signature: decodeBase64Url(signature, { what: 'sealed secret signature', maxBytes: 256 }),
    payload,
  };
}

/** The payload of an unverified secret, for guests whose initdata switches verification off (upstream's legacy form). */
export function unverifiedPayload(text: string): string {
  const [first, , payload] = sections(text, 4);
  if (first !== 'sealed') throw new SealpodError('REQUEST_FORMAT', 'a sealed secret begins with "sealed."');
  return payload;
}

/** The resource that holds the verification key. @throws SealpodError REQUEST_FORMAT, RES_NAME */
export function signingKeyUri(secret: SealedSecret): ResourceUri {
  const algorithm = stringMember(secret.header, 'alg');
  if (algorithm !== 'ES256') {
    throw new SealpodError('REQUEST_FORMAT', 'a sealed secret is signed with ES256', {
      expected: 'ES256',
      actual: algorithm,
    });
  }
  for (const name of ['crit', 'b64']) {
    if (optionalMember(secret.header, name) !== undefined)
      throw new SealpodError('REQUEST_FORMAT', `header member ${name} is not supported`);
  }
  return parseResourceUri(stringMember(secret.header, 'kid'));
}

/** @param jwk text of a JSON Web Key, EC P-256. @throws SealpodError EV_SIGNATURE, REQUEST_FORMAT */
export function verifySealedSecret(secret: SealedSecret, jwk: Uint8Array): void {
  const key = importKey(jwk);
  if (!verify('sha256', Buffer.from(secret.signed, 'ascii'), { key, dsaEncoding: 'ieee-p1363' }, secret.signature)) {
    throw new SealpodError('EV_SIGNATURE', 'the signature of the sealed secret does not verify');
  }
}

function importKey(jwk: Uint8Array): KeyObject {
  const document = asJsonObject(
    parseJson(jwk, { what: 'signing key', maxDepth: 4, maxSize: 16 * 1024 }),
    'signing key',
  );
  const [kty, crv] = [stringMember(document, 'kty'), stringMember(document, 'crv')];
  if (kty !== 'EC' || crv !== 'P-256') {
    throw new SealpodError('REQUEST_FORMAT', 'the signing key is of an unsupported type', {
      expected: 'EC P-256',
      actual: `${kty} ${crv}`,
    });
  }
  try {
    // The public members only, even where a private key was stored.
    return createPublicKey({
      key: { kty, crv, x: stringMember(document, 'x'), y: stringMember(document, 'y') },
      format: 'jwk',
    });
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'the signing key is not a valid key', { cause });
  }
}

/**
 * The resource that a payload names: type `vault`, provider `kbs`. Envelopes need a key management service, which none of
 * ours is (the key broker is no decryptor upstream either).
 *
 * @throws SealpodError REQUEST_FORMAT, UNSUPPORTED, RES_NAME
 */
export function vaultResource(payload: string): ResourceUri {
  const bytes = decodeBase64Url(payload, { what: 'sealed secret payload', maxBytes: maxSecretBytes });
  const document = asJsonObject(
    parseJson(bytes, { what: 'sealed secret payload', maxDepth: 16 }),
    'sealed secret payload',
  );
  const version = stringMember(document, 'version');
  if (version !== payloadVersion) {
    throw new SealpodError('REQUEST_FORMAT', 'unsupported sealed secret version', {
      expected: payloadVersion,
      actual: version,
    });
  }
  const type = stringMember(document, 'type');
  const provider = stringMember(document, 'provider').toLowerCase();
  if (type !== 'vault' || provider !== 'kbs') {
    throw new SealpodError('UNSUPPORTED', 'unsupported sealed secret', {
      expected: 'type vault of provider kbs',
      actual: `${type} of ${provider}`,
    });
  }
  objectMember(document, 'provider_settings');
  objectMember(document, 'annotations');
  return parseResourceUri(stringMember(document, 'name'));
}

function stripPrefix(text: string): string {
  let rest = text;
  while (rest.startsWith(prefix)) rest = rest.slice(prefix.length);
  return rest;
}

function sections(text: string, count: 3): [string, string, string];
function sections(text: string, count: 4): [string, string, string, string];
function sections(text: string, count: number): string[] {
  if (text.length > maxSecretBytes)
    throw new SealpodError('REQUEST_TOO_LARGE', `a sealed secret has at most ${maxSecretBytes} bytes`);
  const parts = text.split('.', count + 1);
  if (parts.length !== count) throw new SealpodError('REQUEST_FORMAT', 'a sealed secret is a compact JWS');
  return parts;
}
