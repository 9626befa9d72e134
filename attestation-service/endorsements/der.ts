import { type BaseBlock, fromBER } from 'asn1js';

/** The DER value that these bytes are, as a whole; undefined where they are none. */
export function derValue(bytes: Uint8Array): BaseBlock | undefined {
  try {
    const { offset, result } = fromBER(new Uint8Array(bytes));
    return offset === bytes.length ? result : undefined;
  } catch {
    // The library throws errors of its own for some strings and times that are malformed.
    return undefined;
  }
}
