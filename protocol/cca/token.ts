import {
  asCborArray,
  asCborBytes,
  asCborMap,
  type CborMap,
  CborTag,
  type CborValue,
  type CoseSign1,
  decodeCbor,
  describeCbor,
  parseCoseSign1,
} from '../cose/index.ts';
import { SealpodError } from '../errors.ts';
import { asJsonObject, asJsonOctets, type JsonValue, optionalMember, parseJson } from '../json/index.ts';
import { type CcaPlatform, readPlatformClaims } from './platform.ts';
import { type CcaRealm, readRealmClaims } from './realm.ts';

const maxTokenBytes = 64 * 1024;

/** Tag of the first collections: a map of byte strings. */
const collectionTag = 399;
/** Tag of a conceptual message wrapper (draft-ietf-rats-msg-wrap): a map of [content format, byte string]. */
const wrapperTag = 907;
/** CoAP content format application/eat+cwt. */
const tokenFormat = 263;
const partLabel = { platform: 44234, realm: 44241 } as const;

/** A CCA attestation token, completely parsed. Nothing in it is verified. */
export interface CcaToken {
  /** The token's own bytes. */
  readonly bytes: Buffer;
  readonly platform: CcaPlatform;
  readonly platformMessage: CoseSign1;
  readonly realm: CcaRealm;
  readonly realmMessage: CoseSign1;
}

/**
 * Reads evidence of TEE `cca`: `{"token": [bytes]}`, or that as JSON text in a string, which is how upstream's key broker
 * passes it on.
 *
 * @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE
 */
export function parseCcaEvidence(evidence: JsonValue): CcaToken {
  const code = 'EV_FORMAT';
  const root =
    typeof evidence === 'string'
      ? parseJson(evidence, { what: 'cca evidence', maxSize: maxTokenBytes * 6, code })
      : evidence;
  const token = optionalMember(asJsonObject(root, 'cca evidence', code), 'token');
  return parseCcaToken(asJsonOctets(token, 'token', { most: maxTokenBytes, code }));
}

/** Parses a token of any profile. @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseCcaToken(bytes: Buffer): CcaToken {
  const collection = decodeCbor(bytes, {
    what: 'CCA token',
    maxBytes: maxTokenBytes,
    tags: [collectionTag, wrapperTag],
  });
  if (!(collection instanceof CborTag)) {
    throw new SealpodError('EV_FORMAT', 'the CCA token is no collection of tokens', {
      expected: `tag ${collectionTag} or ${wrapperTag}`,
      actual: describeCbor(collection),
    });
  }
  const parts = asCborMap(collection.value, 'CCA token');
  const known: readonly CborValue[] = Object.values(partLabel);
  const unknown = [...parts.keys()].find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new SealpodError('EV_FORMAT', 'the CCA token has an unknown part', { actual: describeCbor(unknown) });
  const read = (name: keyof typeof partLabel): { message: CoseSign1; claims: CborMap } => {
    const what = `${name} token`;
    const message = parseCoseSign1(readPart(parts.get(partLabel[name]), collection.tag, what), {
      what,
      maxBytes: maxTokenBytes,
    });
    return { message, claims: asCborMap(decodeCbor(message.payload, { what }), what) };
  };
  const platform = read('platform');
  const realm = read('realm');
  return {
    bytes,
    platform: readPlatformClaims(platform.claims),
    platformMessage: platform.message,
    realm: readRealmClaims(realm.claims),
    realmMessage: realm.message,
  };
}

function readPart(value: CborValue, tag: number, what: string): Buffer {
  if (tag === collectionTag) return asCborBytes(value, what);
  const [format, bytes, ...more] = asCborArray(value, what);
  if (format !== tokenFormat || more.length > 0) {
    throw new SealpodError('EV_FORMAT', `the ${what} is wrapped otherwise`, {
      expected: `[${tokenFormat}, bytes]`,
      actual: describeCbor(format),
    });
  }
  return asCborBytes(bytes, what);
}
