import { constants, gunzipSync, gzipSync } from 'node:zlib';
import { initdataText, maxInitdataBytes, schemaError } from './document.ts';

/** First bytes of an initdata disk (Kata): ASCII magic, u64 little-endian length of the gzip stream, the stream. */
export const initdataDiskMagic = Buffer.from('initdata', 'ascii');
export const initdataDiskHeaderBytes = 16;
/** Largest accepted gzip stream, in bytes. */
export const maxInitdataCompressedBytes = 1 << 20;
const sectorBytes = 512;

/** Host side: the disk image of a document, zero padded to whole sectors. Equal input gives equal bytes. */
export function encodeInitdataDisk(toml: string | Uint8Array): Buffer {
  const compressed = compress(toml);
  const used = initdataDiskHeaderBytes + compressed.length;
  const disk = Buffer.alloc(Math.ceil(used / sectorBytes) * sectorBytes);
  initdataDiskMagic.copy(disk);
  disk.writeBigUInt64LE(BigInt(compressed.length), 8);
  compressed.copy(disk, initdataDiskHeaderBytes);
  return disk;
}

/**
 * Length of the gzip stream that a disk announces, or undefined where the magic is absent (it is another disk).
 *
 * @param header the first 16 bytes or more
 * @throws SealpodError INITDATA_SCHEMA where the length is beyond the limit
 */
export function initdataDiskLength(header: Uint8Array): number | undefined {
  const bytes = Buffer.from(header.buffer, header.byteOffset, header.byteLength);
  if (bytes.length < initdataDiskHeaderBytes || !bytes.subarray(0, 8).equals(initdataDiskMagic)) return undefined;
  const length = bytes.readBigUInt64LE(8);
  if (length === 0n || length > BigInt(maxInitdataCompressedBytes)) {
    throw schemaError(`the disk announces ${length} compressed bytes, allowed are 1 to ${maxInitdataCompressedBytes}`);
  }
  return Number(length);
}

/**
 * Guest side: the raw document bytes of a disk image. Not parsed and not verified: measure them first.
 *
 * @throws SealpodError INITDATA_SCHEMA: no magic, truncated, not gzip, or larger than the limits
 */
export function decodeInitdataDisk(disk: Uint8Array): Buffer {
  const length = initdataDiskLength(disk);
  if (length === undefined) throw schemaError('the disk does not begin with the initdata magic');
  const end = initdataDiskHeaderBytes + length;
  if (disk.length < end) throw schemaError(`the disk ends after ${disk.length} bytes, expected ${end}`);
  return decompress(disk.subarray(initdataDiskHeaderBytes, end));
}

/** The pod annotation `io.katacontainers.config.hypervisor.cc_init_data`: base64(gzip(TOML)). */
export function encodeInitdataAnnotation(toml: string | Uint8Array): string {
  return compress(toml).toString('base64');
}

/**
 * The document text of a pod annotation.
 *
 * @throws SealpodError INITDATA_SCHEMA: not base64, not gzip, not UTF-8, or larger than the limits
 */
export function decodeInitdataAnnotation(annotation: string): string {
  if (annotation.length > Math.ceil(maxInitdataCompressedBytes / 3) * 4)
    throw schemaError('the annotation is too long');
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(annotation)) throw schemaError('the annotation is not base64');
  return initdataText(decompress(Buffer.from(annotation, 'base64')));
}

function compress(toml: string | Uint8Array): Buffer {
  if (Buffer.byteLength(toml) > maxInitdataBytes) throw schemaError(`the document exceeds ${maxInitdataBytes} bytes`);
  const compressed = gzipSync(toml, { level: constants.Z_BEST_COMPRESSION });
  if (compressed.length > maxInitdataCompressedBytes) {
    throw schemaError(`the document exceeds ${maxInitdataCompressedBytes} bytes after compression`);
  }
  return compressed;
}

function decompress(compressed: Uint8Array): Buffer {
  try {
    return gunzipSync(compressed, { maxOutputLength: maxInitdataBytes });
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ERR_BUFFER_TOO_LARGE') {
      throw schemaError(`the document exceeds ${maxInitdataBytes} bytes`, cause);
    }
    throw schemaError('the document is not a whole gzip stream', cause);
  }
}
