import {
  asCborArray,
  asCborBytes,
  asCborInteger,
  asCborMap,
  asCborText,
  type CborMap,
  type CoseSign1,
  decodeCbor,
  parseCoseSign1,
} from '../cose/index.ts';
import { SealpodError } from '../errors.ts';
import { asJsonObject, decodeBase64, type JsonValue, stringMember } from '../json/index.ts';

const code = 'EV_FORMAT';
const maxDocumentBytes = 64 * 1024;

/**
 * An attestation document of AWS Nitro (Nitro Enclaves attestation process, section 3.2: format and limits). Its signature is not
 * verified.
 */
export interface NitroDocument {
  /** The signed message. */
  readonly message: CoseSign1;
  readonly moduleId: string;
  /** Hash of the registers; `SHA384`. */
  readonly digest: string;
  readonly timestamp: Date;
  /** Registers by number; those that are locked. */
  readonly pcrs: ReadonlyMap<number, Buffer>;
  /** Certificate of the signing key, DER. */
  readonly certificate: Buffer;
  /** Its authorities, root first, DER. */
  readonly authorities: readonly Buffer[];
  readonly publicKey?: Buffer;
  readonly userData?: Buffer;
  readonly nonce?: Buffer;
}

/** Evidence of TEE `aws-nitro`: `{"document": base64 of the COSE_Sign1}`. @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseNitroEvidence(evidence: JsonValue): NitroDocument {
  const text = stringMember(asJsonObject(evidence, 'aws-nitro evidence', code), 'document', code);
  return parseNitroDocument(decodeBase64(text, { what: 'document', maxBytes: maxDocumentBytes, code }));
}

const limits = { certificate: 1024 * 8, authorities: 8, text: 512, publicKey: 1024 } as const;

/** Parses a document. @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseNitroDocument(bytes: Uint8Array): NitroDocument {
  const what = 'Nitro attestation document';
  const message = parseCoseSign1(bytes, { what, maxBytes: maxDocumentBytes });
  const members = asCborMap(decodeCbor(message.payload, { what, maxBytes: maxDocumentBytes }), what);
  const authorities = asCborArray(members.get('cabundle'), 'cabundle');
  if (authorities.length === 0 || authorities.length > limits.authorities)
    throw new SealpodError(code, 'wrong number of certificates in cabundle', {
      expected: `1 to ${limits.authorities}`,
      actual: `${authorities.length}`,
    });
  return {
    message,
    moduleId: limited(asCborText(members.get('module_id'), 'module_id'), 'module_id', limits.text),
    digest: asCborText(members.get('digest'), 'digest'),
    timestamp: new Date(asCborInteger(members.get('timestamp'), 'timestamp')),
    pcrs: readRegisters(members.get('pcrs')),
    certificate: limited(asCborBytes(members.get('certificate'), 'certificate'), 'certificate', limits.certificate),
    authorities: authorities.map((authority) =>
      limited(asCborBytes(authority, 'cabundle[]'), 'cabundle[]', limits.certificate),
    ),
    ...optionalBytes(members, 'public_key', 'publicKey', limits.publicKey),
    ...optionalBytes(members, 'user_data', 'userData', limits.text),
    ...optionalBytes(members, 'nonce', 'nonce', limits.text),
  };
}

const maxRegisters = 32;

function readRegisters(value: Parameters<typeof asCborMap>[0]): Map<number, Buffer> {
  const registers = new Map<number, Buffer>();
  for (const [index, register] of asCborMap(value, 'pcrs')) {
    const number = asCborInteger(index, 'index of a register');
    if (number < 0 || number >= maxRegisters)
      throw new SealpodError(code, 'a register that there is not', { expected: '0 to 31', actual: `${number}` });
    registers.set(number, asCborBytes(register, `PCR${number}`, 32, 48, 64));
  }
  return registers;
}

function limited<Value extends { readonly length: number }>(value: Value, what: string, most: number): Value {
  if (value.length > 0 && value.length <= most) return value;
  throw new SealpodError(code, `${what} has a length that may not be`, {
    expected: `1 to ${most}`,
    actual: `${value.length}`,
  });
}

/** Absent, null, or bytes. */
function optionalBytes<Name extends string>(
  members: CborMap,
  member: string,
  name: Name,
  most: number,
): { readonly [Key in Name]?: Buffer } {
  const value = members.get(member);
  if (value === undefined || value === null) return {};
  const bytes = asCborBytes(value, member);
  if (bytes.length > most)
    throw new SealpodError(code, `${member} is too long`, { expected: `at most ${most}`, actual: `${bytes.length}` });
  return { [name]: bytes } as { readonly [Key in Name]?: Buffer };
}
