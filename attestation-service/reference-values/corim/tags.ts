import { asCborBytes, CborTag, type CborValue, decodeCbor } from '@sealpod/protocol/cose';
import { SealpodError } from '@sealpod/protocol/errors';

/** Tags of CoRIM (draft-ietf-rats-corim, IANA section) that are read here. */
export const tags = {
  corim: 500,
  unsigned: 501,
  signed: 502,
  coswid: 505,
  comid: 506,
  svn: 552,
  bytes: 560,
  epochTime: 1,
  uuid: 37,
  objectIdentifier: 111,
} as const;

const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** Tags that may stand in a manifest. What they hold is looked at where it is used. */
export const corimTags: readonly number[] = [0, 1, 32, 37, 111, ...range(500, 571), ...range(600, 608)];

/** Decodes what stands inside a byte string of a manifest. @throws SealpodError EV_FORMAT */
export function decodeInner(value: CborValue, what: string): CborValue {
  return decodeCbor(asCborBytes(value, what), { what, maxBytes: 1024 * 1024, tags: corimTags });
}

/** A point in time, tagged or not. @throws SealpodError EV_FORMAT */
export function asSeconds(value: CborValue, what: string): number {
  const seconds = value instanceof CborTag && value.tag === tags.epochTime ? value.value : value;
  if (typeof seconds !== 'number' || !Number.isFinite(seconds) || Math.abs(seconds) > 8.64e12)
    throw new SealpodError('EV_FORMAT', `${what} holds a date that is none`);
  return seconds;
}
