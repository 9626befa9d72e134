import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { run } from './run.ts';

/** EFI_FIRMWARE_VOLUME_HEADER: signature at 40, length (u64) at 32 (UEFI PI specification, volume 3, section 3.2.1). */
const signature = Buffer.from('_FVH');
/** GUID of an LZMA-compressed section, as stored: EE4E5898-3914-4259-9D6E-DC7BD79403CF. */
const lzmaSection = Buffer.from('98584eee143959429d6edc7bd79403cf', 'hex');

/**
 * SHA-256 digests (hex) of the firmware volumes inside OVMF's compressed section, which the firmware measures into
 * PCR 0 before it runs them. Of them, only the driver volume is measured as it lies in the file.
 */
export async function firmwareVolumeDigests(firmware: string): Promise<string[]> {
  const file = await readFile(firmware);
  const at = file.indexOf(lzmaSection);
  if (at < 0) return [];
  const section = at - 4;
  const size = file.readUIntLE(section, 3);
  const dataOffset = file.readUInt16LE(at + 16);
  const compressed = file.subarray(section + dataOffset, section + size);
  const content = await run('xz', ['--format=lzma', '--decompress', '--stdout'], {
    input: compressed,
    maxOutputBytes: 64 << 20,
  });
  const digests: string[] = [];
  for (let found = content.indexOf(signature); found >= 40; found = content.indexOf(signature, found + 1)) {
    const start = found - 40;
    const length = Number(content.readBigUInt64LE(start + 32));
    if (length < 72 || start + length > content.length) continue;
    digests.push(
      createHash('sha256')
        .update(content.subarray(start, start + length))
        .digest('hex'),
    );
  }
  return digests;
}
