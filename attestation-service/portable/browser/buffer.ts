/**
 * `Buffer` in the browser: of Node's class what verifiers use. The npm package of that name is five times as large and
 * lacks the encoding `base64url`. Undecodable text ends or is skipped as on Node, out-of-range reads throw RangeError.
 *
 * @module
 */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const sextets = new Map([...alphabet, '-', '_'].map((character, index) => [character, index > 63 ? index - 2 : index]));

function decode(text: string, encoding: string): Uint8Array {
  switch (encoding.toLowerCase()) {
    case 'hex':
      return fromHex(text);
    case 'base64':
    case 'base64url':
      return fromBase64(text);
    case 'latin1':
    case 'binary':
    case 'ascii':
      return Uint8Array.from(text, (character) => character.charCodeAt(0));
    case 'utf16le':
    case 'utf-16le':
    case 'ucs2':
      return Uint8Array.from({ length: text.length * 2 }, (_, at) => text.charCodeAt(at >> 1) >> (8 * (at & 1)));
    case 'utf8':
    case 'utf-8':
      return new TextEncoder().encode(text);
    default:
      throw new TypeError(`Unknown encoding: ${encoding}`);
  }
}

function encode(bytes: Uint8Array, encoding: string): string {
  switch (encoding.toLowerCase()) {
    case 'hex':
      return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    case 'base64':
      return toBase64(bytes);
    case 'base64url':
      return toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
    case 'latin1':
    case 'binary':
      return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
    case 'ascii':
      return Array.from(bytes, (byte) => String.fromCharCode(byte & 0x7f)).join('');
    case 'utf16le':
    case 'utf-16le':
    case 'ucs2':
      return Array.from({ length: bytes.length >> 1 }, (_, at) =>
        String.fromCharCode((bytes[2 * at] ?? 0) | ((bytes[2 * at + 1] ?? 0) << 8)),
      ).join('');
    case 'utf8':
    case 'utf-8':
      return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
    default:
      throw new TypeError(`Unknown encoding: ${encoding}`);
  }
}

function fromHex(text: string): Uint8Array {
  const digits = /^(?:[0-9a-fA-F]{2})*/.exec(text)?.[0] ?? '';
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) =>
    Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16),
  );
}

function fromBase64(text: string): Uint8Array {
  const bytes: number[] = [];
  let [bits, held] = [0, 0];
  for (const character of text) {
    if (character === '=') break;
    const value = sextets.get(character);
    if (value === undefined) continue;
    bits = ((bits << 6) | value) & 0xfff;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes.push((bits >> held) & 0xff);
  }
  return Uint8Array.from(bytes);
}

function toBase64(bytes: Uint8Array): string {
  const groups: string[] = [];
  for (let at = 0; at < bytes.length; at += 3) {
    const [first = 0, second, third] = bytes.subarray(at, at + 3);
    const group = (first << 16) | ((second ?? 0) << 8) | (third ?? 0);
    const characters = [18, 12, 6, 0].map((shift) => alphabet[(group >> shift) & 63]);
    if (third === undefined) characters[3] = '=';
    if (second === undefined) characters[2] = '=';
    groups.push(characters.join(''));
  }
  return groups.join('');
}

class PortableBuffer extends Uint8Array {
  static override from(source: unknown, second?: unknown, third?: unknown): PortableBuffer {
    if (typeof source === 'string') return copyOf(decode(source, typeof second === 'string' ? second : 'utf8'));
    if (Object.prototype.toString.call(source) === '[object ArrayBuffer]')
      return new PortableBuffer(source as ArrayBuffer, second as number | undefined, third as number | undefined);
    if (typeof source !== 'object' || source === null) throw new TypeError('no bytes');
    return copyOf(source as ArrayLike<number>);
  }

  static alloc(size: number, value = 0): PortableBuffer {
    return new PortableBuffer(size).fill(value);
  }

  static isBuffer(value: unknown): boolean {
    return value instanceof PortableBuffer;
  }

  static byteLength(text: string | Uint8Array, encoding = 'utf8'): number {
    return typeof text === 'string' ? decode(text, encoding).length : text.byteLength;
  }

  static compare(left: Uint8Array, right: Uint8Array): number {
    const at = left.findIndex((byte, index) => byte !== right[index]);
    if (at < 0 || at >= right.length) return Math.sign(left.length - right.length);
    return Math.sign((left[at] ?? 0) - (right[at] ?? 0));
  }

  static concat(
    parts: readonly Uint8Array[],
    length = parts.reduce((sum, part) => sum + part.length, 0),
  ): PortableBuffer {
    const all = new PortableBuffer(length);
    let at = 0;
    for (const part of parts) {
      all.set(part.subarray(0, Math.max(length - at, 0)), Math.min(at, length));
      at += part.length;
    }
    return all;
  }

  get #view(): DataView {
    return new DataView(this.buffer, this.byteOffset, this.byteLength);
  }

  override toString(encoding = 'utf8', start = 0, end = this.length): string {
    return encode(this.subarray(start, end), encoding);
  }

  toJSON(): { type: 'Buffer'; data: number[] } {
    return { type: 'Buffer', data: Array.from(this) };
  }

  equals(other: Uint8Array): boolean {
    return PortableBuffer.compare(this, other) === 0;
  }

  compare(other: Uint8Array): number {
    return PortableBuffer.compare(this, other);
  }

  copy(target: Uint8Array, at = 0, start = 0, end = this.length): number {
    const part = this.subarray(start, Math.min(end, start + target.length - at));
    target.set(part, at);
    return part.length;
  }

  /** A view, as Node's. */
  override slice(start?: number, end?: number): this {
    return this.subarray(start, end) as this;
  }

  override indexOf(value: number | string | Uint8Array, from = 0): number {
    if (typeof value === 'number') return super.indexOf(value & 0xff, from);
    const wanted = typeof value === 'string' ? decode(value, 'utf8') : value;
    for (let at = from; at + wanted.length <= this.length; at += 1)
      if (wanted.every((byte, index) => this[at + index] === byte)) return at;
    return -1;
  }

  override includes(value: number | string | Uint8Array, from = 0): boolean {
    return this.indexOf(value, from) >= 0;
  }

  readUIntBE(at: number, size: number): number {
    if (at + size > this.length) throw new RangeError('out of range');
    return this.subarray(at, at + size).reduce((sum, byte) => sum * 256 + byte, 0);
  }

  readUInt8(at = 0): number {
    return this.#view.getUint8(at);
  }

  writeUInt8(value: number, at = 0): number {
    this.#view.setUint8(at, value);
    return at + 1;
  }

  readUInt16LE(at = 0): number {
    return this.#view.getUint16(at, true);
  }

  writeUInt16LE(value: number, at = 0): number {
    this.#view.setUint16(at, value, true);
    return at + 2;
  }

  readUInt16BE(at = 0): number {
    return this.#view.getUint16(at, false);
  }

  writeUInt16BE(value: number, at = 0): number {
    this.#view.setUint16(at, value, false);
    return at + 2;
  }

  readUInt32LE(at = 0): number {
    return this.#view.getUint32(at, true);
  }

  writeUInt32LE(value: number, at = 0): number {
    this.#view.setUint32(at, value, true);
    return at + 4;
  }

  readUInt32BE(at = 0): number {
    return this.#view.getUint32(at, false);
  }

  writeUInt32BE(value: number, at = 0): number {
    this.#view.setUint32(at, value, false);
    return at + 4;
  }

  readBigUInt64LE(at = 0): bigint {
    return this.#view.getBigUint64(at, true);
  }

  writeBigUInt64LE(value: bigint, at = 0): number {
    this.#view.setBigUint64(at, value, true);
    return at + 8;
  }

  readBigUInt64BE(at = 0): bigint {
    return this.#view.getBigUint64(at, false);
  }

  writeBigUInt64BE(value: bigint, at = 0): number {
    this.#view.setBigUint64(at, value, false);
    return at + 8;
  }
}

function copyOf(bytes: ArrayLike<number>): PortableBuffer {
  const copy = new PortableBuffer(bytes.length);
  copy.set(bytes);
  return copy;
}

export { PortableBuffer as Buffer };
