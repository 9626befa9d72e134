import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rm, stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { layOutGpt } from './gpt.ts';
import { rootPartitionName, verityPartitionName } from './initrd.ts';
import type { ManifestPart } from './manifest.ts';

const diskId = '5ea19d00-0000-4000-8000-000000000010';
/** Types: UEFI specification table 5.7, and the UAPI group's Discoverable Partitions Specification (x86-64). */
const efiType = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const rootType = '4f68bce3-e8cd-4db1-96e7-fbcaf984b709';
const verityType = '2c7357ed-ebd2-46d9-aec1-23d437ec2bf5';

/** Files with the content of the three partitions. */
export interface PartitionFiles {
  readonly efi: string;
  readonly root: string;
  readonly verity: string;
}

export const efiPartitionName = 'sealpod-efi';

/** Writes one raw disk with EFI, root and verity partition, and says where each lies and what it hashes to. */
export async function writeDisk(disk: string, files: PartitionFiles): Promise<ManifestPart[]> {
  const described = [
    { name: efiPartitionName, type: efiType, file: files.efi, id: '5ea19d00-0000-4000-8000-000000000011' },
    { name: rootPartitionName, type: rootType, file: files.root, id: '5ea19d00-0000-4000-8000-000000000012' },
    { name: verityPartitionName, type: verityType, file: files.verity, id: '5ea19d00-0000-4000-8000-000000000013' },
  ];
  const sizes = await Promise.all(described.map(async (part) => (await stat(part.file)).size));
  const layout = layOutGpt(
    diskId,
    described.map(({ name, type, id }, index) => ({ name, type, id, size: sizes[index] ?? 0 })),
  );
  await rm(disk, { force: true });
  const handle = await open(disk, 'wx', 0o644);
  const parts: ManifestPart[] = [];
  try {
    await handle.truncate(layout.diskSize);
    await handle.write(layout.head, 0, layout.head.length, 0);
    for (const [index, part] of described.entries()) {
      const content = await readFile(part.file);
      const offset = layout.partitions[index]?.offset ?? 0;
      await handle.write(content, 0, content.length, offset);
      parts.push({ name: part.name, size: content.length, sha256: sha256(content), offset });
    }
    await handle.write(layout.tail, 0, layout.tail.length, layout.diskSize - layout.tail.length);
  } finally {
    await handle.close();
  }
  return parts;
}

export function sha256(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

/** SHA-256 of a file of any size, hex. */
export async function fileSha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}
