import { SealpodError } from '../errors.ts';

/** UEFI_VARIABLE_DATA (PFP §10.2.6). */
export interface UefiVariable {
  /** GUID bytes as they lie in the event. */
  readonly guid: Buffer;
  readonly name: string;
  readonly data: Buffer;
}

/** Reads the data of an EV_EFI_VARIABLE_* event. @throws SealpodError EV_FORMAT */
export function parseUefiVariable(event: Buffer): UefiVariable {
  if (event.length < 32) throw malformed('UEFI variable');
  const nameBytes = event.readBigUInt64LE(16) * 2n;
  const dataBytes = event.readBigUInt64LE(24);
  if (32n + nameBytes + dataBytes !== BigInt(event.length)) throw malformed('UEFI variable');
  const end = 32 + Number(nameBytes);
  return { guid: event.subarray(0, 16), name: event.subarray(32, end).toString('utf16le'), data: event.subarray(end) };
}

/** TCG_PCClientTaggedEvent: the data of an EV_EVENT_TAG. */
export interface TaggedEvent {
  readonly tag: number;
  readonly data: Buffer;
}

/** Reads the data of an EV_EVENT_TAG event; bytes beyond the declared size are refused. @throws SealpodError EV_FORMAT */
export function parseTaggedEvent(event: Buffer): TaggedEvent {
  if (event.length < 8 || event.readUInt32LE(4) !== event.length - 8) throw malformed('tagged event');
  return { tag: event.readUInt32LE(0), data: event.subarray(8) };
}

/** UTF-16LE text with its final NUL, as EFI programs describe what they measured; undefined where it is none. */
export function utf16Text(bytes: Buffer): string | undefined {
  if (bytes.length < 2 || bytes.length % 2 !== 0 || bytes.readUInt16LE(bytes.length - 2) !== 0) return undefined;
  const text = bytes.subarray(0, -2).toString('utf16le');
  return text.includes('\0') || !text.isWellFormed() ? undefined : text;
}

function malformed(what: string): SealpodError {
  return new SealpodError('EV_FORMAT', `malformed ${what} in the event log`);
}
