/** Encodes a non-negative INTEGER from its big-endian bytes. */
export function derInteger(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  const value = Buffer.from(first < 0 ? [0] : bytes.subarray(first));
  return element(2, (value[0] ?? 0) > 127 ? Buffer.concat([Buffer.from([0]), value]) : value);
}

export function derSequence(...members: readonly Uint8Array[]): Buffer {
  return element(0x30, Buffer.concat(members));
}

function element(tag: number, content: Uint8Array): Buffer {
  if (content.length < 128) return Buffer.concat([Buffer.from([tag, content.length]), content]);
  const text = content.length.toString(16);
  const length = Buffer.from(text.padStart(text.length + (text.length % 2), '0'), 'hex');
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, content]);
}

/** Content and whole length of the element at the start of `bytes`. @throws RangeError for indefinite or long lengths */
export function derElement(bytes: Uint8Array): {
  readonly tag: number;
  readonly content: Buffer;
  readonly size: number;
} {
  const all = Buffer.from(bytes);
  const first = all[1] ?? 0x80;
  const lengthBytes = first < 128 ? 0 : first & 0x7f;
  if (first === 0x80 || lengthBytes > 4 || all.length < 2 + lengthBytes) throw new RangeError('malformed length');
  const length = lengthBytes === 0 ? first : all.readUIntBE(2, lengthBytes);
  const size = 2 + lengthBytes + length;
  if (all.length < size) throw new RangeError('truncated element');
  return { tag: all[0] ?? 0, content: all.subarray(2 + lengthBytes, size), size };
}

/** The members of a SEQUENCE. @throws RangeError */
export function derMembers(bytes: Uint8Array): { readonly tag: number; readonly content: Buffer }[] {
  const sequence = derElement(bytes);
  if (sequence.tag !== 0x30 || sequence.size !== bytes.length) throw new RangeError('no sequence');
  const found: { readonly tag: number; readonly content: Buffer }[] = [];
  for (let rest = sequence.content; rest.length > 0; ) {
    const { tag, content, size } = derElement(rest);
    found.push({ tag, content });
    rest = rest.subarray(size);
  }
  return found;
}

/** The members of a SEQUENCE of INTEGERs that are not negative. @throws RangeError */
export function derIntegers(bytes: Uint8Array): Buffer[] {
  return derMembers(bytes).map(({ tag, content }) => {
    if (tag !== 2 || content.length === 0 || (content[0] ?? 0) > 127) throw new RangeError('no positive integer');
    return content;
  });
}
