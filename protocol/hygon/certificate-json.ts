import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonOctets,
  integerMember,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
} from '../json/index.ts';
import {
  type HygonCertificate,
  hygonAuthorityBytes,
  hygonKeyBytes,
  parseHygonAuthority,
  parseHygonKey,
} from './certificate.ts';

const code = 'EV_FORMAT';

/** Writes the members of a structure one after another, as the structure lies in memory. */
class StructureWriter {
  readonly bytes: Buffer;
  #at = 0;

  constructor(length: number) {
    this.bytes = Buffer.alloc(length);
  }

  octets(object: JsonObject, name: string, length: number): this {
    const value = asJsonOctets(optionalMember(object, name), name, { least: length, most: length, code });
    this.#at += value.copy(this.bytes, this.#at);
    return this;
  }

  integer(object: JsonObject, name: string, size: 1 | 2 | 4): this {
    const value = integerMember(object, name, code);
    if (value < 0 || value >= 256 ** size)
      throw new SealpodError(code, `${name} is out of range`, { actual: `${value}` });
    this.bytes.writeUIntLE(value, this.#at, size);
    this.#at += size;
    return this;
  }

  point(key: JsonObject): this {
    return this.integer(key, 'g', 4).octets(key, 'x', 72).octets(key, 'y', 72);
  }

  signature(signature: JsonObject): this {
    return this.octets(signature, 'r', 72).octets(signature, 's', 72);
  }

  /** Reserved bytes that nothing signs. */
  skip(length: number): this {
    this.#at += length;
    return this;
  }
}

/**
 * Reads the certificate of a signing key as upstream writes it: the members of its structure (csv-rs, `ca::Certificate`).
 *
 * @throws SealpodError EV_FORMAT naming the member
 */
export function readHygonAuthority(value: JsonValue | undefined, what: string): HygonCertificate {
  const certificate = asJsonObject(value, what, code);
  const body = objectMember(certificate, 'body', code);
  const preamble = objectMember(body, 'preamble', code);
  const data = objectMember(preamble, 'data', code);
  const writer = new StructureWriter(hygonAuthorityBytes)
    .integer(preamble, 'ver', 4)
    .octets(data, 'kid', 16)
    .octets(data, 'sid', 16)
    .integer(data, 'usage', 4)
    .octets(data, 'reserved', 24)
    .point(objectMember(body, 'pubkey', code))
    .integer(body, 'uid_size', 2)
    .octets(body, 'user_id', 254)
    .octets(body, 'reserved', 108)
    .signature(objectMember(certificate, 'signature', code));
  return parseHygonAuthority(writer.bytes);
}

/**
 * Reads the certificate of a chip or platform key as upstream writes it (csv-rs, `csv::Certificate`).
 *
 * @throws SealpodError EV_FORMAT naming the member
 */
export function readHygonKey(value: JsonValue | undefined, what: string): HygonCertificate {
  const certificate = asJsonObject(value, what, code);
  const body = objectMember(certificate, 'body', code);
  const data = objectMember(body, 'data', code);
  const firmware = objectMember(data, 'firmware', code);
  const key = objectMember(data, 'pubkey', code);
  const writer = new StructureWriter(hygonKeyBytes)
    .integer(body, 'ver', 4)
    .integer(firmware, 'major', 1)
    .integer(firmware, 'minor', 1)
    .integer(data, 'reserved1', 2)
    .integer(key, 'usage', 4)
    .integer(key, 'algo', 4)
    .point(objectMember(key, 'key', code))
    .integer(data, 'uid_size', 2)
    .octets(data, 'user_id', 254)
    .octets(data, 'sid', 16)
    .octets(data, 'reserved2', 608);
  const signatures = optionalMember(certificate, 'sigs');
  if (!Array.isArray(signatures) || signatures.length !== 2)
    throw new SealpodError(code, `${what} has not two signatures`);
  for (const item of signatures) {
    const signature = asJsonObject(item as JsonValue, 'sigs[]', code);
    writer
      .integer(signature, 'usage', 4)
      .integer(signature, 'algo', 4)
      .signature(objectMember(signature, 'signature', code))
      .skip(368);
  }
  return parseHygonKey(writer.bytes);
}
