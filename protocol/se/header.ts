import { SealpodError } from '../errors.ts';

/** Page list digest, address list digest, tweak list digest (64 bytes each) and tag (16 bytes) of an image's header. */
export const seHeaderTagsBytes = 208;
const headBytes = 0x1a0;
const tagBytes = 16;
const pageBytes = 4096;
const headerMagic = Buffer.from('IBMSecEx', 'latin1');
const imageMagic = Buffer.from('SeImgLnx', 'latin1');
const imageMetadataAt = 0xc000;
/** A header that is not named by metadata lies at the start of one of the first pages. */
const searchedPages = 0x15;
const largestHeader = 64 * 1024;

/**
 * Finds the header of a Secure Execution image, or takes a file that is one, and returns the digests and tag that the
 * Ultravisor measures (s390-tools: pvattest, boot request control block).
 *
 * @throws SealpodError EV_FORMAT
 */
export function parseSeHeaderTags(image: Buffer): Buffer {
  const at = findHeader(image);
  if (at === undefined) throw new SealpodError('EV_FORMAT', 'no Secure Execution header', { expected: 'IBMSecEx' });
  const version = image.readUInt32BE(at + 8);
  const size = image.readUInt32BE(at + 12);
  if (version !== 0x100 || size < headBytes + tagBytes || size > largestHeader || at + size > image.length) {
    throw new SealpodError('EV_FORMAT', 'the Secure Execution header is malformed', {
      expected: `version 0x100, ${headBytes + tagBytes} to ${largestHeader} bytes`,
      actual: `version 0x${version.toString(16)}, ${size} bytes of ${image.length - at}`,
    });
  }
  const digests = image.subarray(at + headBytes - 192, at + headBytes);
  return Buffer.concat([digests, image.subarray(at + size - tagBytes, at + size)]);
}

function findHeader(image: Buffer): number | undefined {
  const startsAt = (at: number): boolean =>
    at + headBytes <= image.length && image.subarray(at, at + 8).equals(headerMagic);
  if (image.length >= imageMetadataAt + 28 && image.subarray(imageMetadataAt, imageMetadataAt + 8).equals(imageMagic)) {
    const at = image.readBigUInt64BE(imageMetadataAt + 8);
    return at < BigInt(image.length) && startsAt(Number(at)) ? Number(at) : undefined;
  }
  for (let page = 0; page < searchedPages; page += 1) if (startsAt(page * pageBytes)) return page * pageBytes;
  return undefined;
}
