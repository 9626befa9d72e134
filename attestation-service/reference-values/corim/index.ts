import {
  asCborInteger,
  asCborMap,
  type CborMap,
  CborTag,
  type CborValue,
  type CoseSign1,
  coseHeader,
  decodeCbor,
  parseCoseSign1,
  verifyCoseSign1,
} from '@sealpod/protocol/cose';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Signer } from '../config.ts';
import type { ReferenceValueStatement } from '../statement.ts';
import { referenceValuesOf } from './reference-values.ts';
import { asSeconds, corimTags, decodeInner, tags } from './tags.ts';

/** A concise reference integrity manifest as it came. */
export interface OpenedCorim {
  /** Absent for an unsigned manifest. */
  readonly signed?: { readonly signers: readonly Signer[]; readonly payload: Buffer };
  readonly statement: ReferenceValueStatement;
}

const maxBytes = 1024 * 1024;
const contentTypes = ['application/rim+cbor', 'application/corim-unsigned+cbor'];
/** Header parameters: corim-meta (draft-ietf-rats-corim section 4.2.1) and CWT claims (RFC 9597). */
const header = { meta: 8, cwtClaims: 15 } as const;

/**
 * Opens a CoRIM (draft-ietf-rats-corim): COSE_Sign1 around an unsigned manifest, or that manifest alone, with or without
 * the tags 500 to 502; earlier drafts, which Veraison's tools write, have none. Signers are found by trying; `kid` is a hint.
 *
 * Not verified: that a signer is among the enrolled ones. Dates: a signed manifest must say since when it holds, in
 * `corim-meta`, in CWT claims or in its own validity; without it an old one could not be told from a new one.
 *
 * @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE, UNSUPPORTED for what a reference value here cannot express
 */
export function openCorim(bytes: Uint8Array, signers: readonly Signer[]): OpenedCorim {
  try {
    const inner = withoutTags(bytes, [tags.corim, tags.signed]);
    if (isTagged(inner, tags.unsigned) || isMap(inner)) return { statement: statementOf(inner, undefined) };
    const message = parseCoseSign1(inner, { what: 'signed CoRIM', maxBytes });
    checkContentType(message);
    return {
      signed: { signers: signers.filter(({ key }) => verifyCoseSign1(message, key)), payload: Buffer.from(inner) },
      statement: statementOf(message.payload, message.protectedHeader),
    };
  } catch (thrown) {
    // The CBOR reader is that of evidence; here the request is at fault.
    if (!(thrown instanceof SealpodError) || thrown.code !== 'EV_FORMAT') throw thrown;
    throw new SealpodError('REQUEST_FORMAT', thrown.message, { ...thrown.detail, cause: thrown });
  }
}

function isTagged(bytes: Uint8Array, tag: number): boolean {
  return bytes[0] === 0xd9 && bytes[1] === tag >> 8 && bytes[2] === (tag & 0xff);
}

/** The manifest itself, as earlier drafts have it. */
function isMap([first = 0]: Uint8Array): boolean {
  return first >> 5 === 5;
}

function withoutTags(bytes: Uint8Array, outer: readonly number[]): Uint8Array {
  return outer.reduce((rest, tag) => (isTagged(rest, tag) ? rest.subarray(3) : rest), bytes);
}

function checkContentType({ protectedHeader }: CoseSign1): void {
  const type = protectedHeader.get(coseHeader.contentType);
  if (typeof type === 'string' && contentTypes.includes(type)) return;
  throw new SealpodError('REQUEST_FORMAT', 'the signed message is no CoRIM', {
    expected: `content type ${contentTypes[0]}`,
    actual: String(type).slice(0, 64),
  });
}

/** Members of the manifest: section 4.1 of the draft. */
const member = { tags: 1, validity: 4 } as const;

function statementOf(payload: Uint8Array, protectedHeader: CborMap | undefined): ReferenceValueStatement {
  const item = decodeCbor(payload, { what: 'CoRIM', maxBytes, tags: corimTags });
  const manifest = asCborMap(item instanceof CborTag && item.tag === tags.unsigned ? item.value : item, 'CoRIM');
  const validities = [
    validityOf(manifest.get(member.validity), 'validity of the CoRIM'),
    ...(protectedHeader === undefined ? [] : validitiesOfHeader(protectedHeader)),
  ];
  const since = validities.flatMap(({ notBefore }) => notBefore ?? []);
  const until = validities.flatMap(({ notAfter }) => notAfter ?? []);
  if (protectedHeader !== undefined && since.length === 0) {
    throw new SealpodError('REQUEST_FORMAT', 'the signed CoRIM does not say since when it holds', {
      expected: 'not-before in corim-meta or rim-validity, or iat in CWT claims',
      actual: 'no date',
    });
  }
  return {
    values: referenceValuesOf(manifest.get(member.tags)),
    issuedAt: new Date(since.length === 0 ? Date.now() : Math.max(...since) * 1000),
    ...(until.length === 0 ? {} : { expiresAt: new Date(Math.min(...until) * 1000) }),
  };
}

interface Validity {
  /** Seconds since the epoch. */
  readonly notBefore?: number;
  readonly notAfter?: number;
}

function validityOf(value: CborValue, what: string): Validity {
  if (value === undefined) return {};
  const map = asCborMap(value, what);
  const at = (label: number): number | undefined => (map.has(label) ? asSeconds(map.get(label), what) : undefined);
  return validity(at(0), at(1));
}

function validity(notBefore: number | undefined, notAfter: number | undefined): Validity {
  return { ...(notBefore === undefined ? {} : { notBefore }), ...(notAfter === undefined ? {} : { notAfter }) };
}

function validitiesOfHeader(protectedHeader: CborMap): Validity[] {
  const meta = protectedHeader.get(header.meta);
  const claims = protectedHeader.get(header.cwtClaims);
  const fromMeta =
    meta === undefined ? {} : validityOf(asCborMap(decodeInner(meta, 'corim-meta'), 'corim-meta').get(1), 'corim-meta');
  if (claims === undefined) return [fromMeta];
  const map = asCborMap(claims, 'CWT claims');
  const claim = (label: number): number | undefined =>
    map.has(label) ? asCborInteger(map.get(label), 'CWT claim') : undefined;
  // RFC 8392 section 4: exp 4, nbf 5, iat 6.
  return [fromMeta, validity(claim(6) ?? claim(5), claim(4))];
}
