import { createCipheriv, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registryProcessMissing, startRegistry } from '@sealpod/registry/testing';
import { expect, it } from 'vitest';
import { pullInOwnProcess } from './bench.ts';
import { pushTestImage, tarOf } from './testing/test-image.ts';

const missing = registryProcessMissing() ?? (process.getuid?.() === 0 ? undefined : 'unpacking with owners needs root');
const small = 48 << 20;
const large = 192 << 20;

/** Content that compresses to a half, made fast: nothing of it repeats within the window of a compressor but zeros. */
function content(bytes: number): Buffer {
  const random = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(bytes));
  for (let start = 0; start < bytes; start += 8192) random.fill(0, start, start + 4096);
  return random;
}

it.skipIf(missing !== undefined)(
  `a layer four times as large takes no more memory to pull, decrypt and unpack${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 240_000 },
  async () => {
    const registry = await startRegistry();
    const directory = mkdtempSync(join(tmpdir(), 'sealpod-memory-'));
    const key = { id: 'kbs:///default/image-key/1', bytes: randomBytes(32) };
    const pull = (image: string) =>
      pullInOwnProcess({ image, host: registry.host, directory, key: key.bytes.toString('hex') });
    try {
      for (const bytes of [small, large]) {
        const archive = await tarOf([{ name: 'file', content: content(bytes) }]);
        await pushTestImage(registry.host, `of-${bytes}`, '1', [{ archive, key, compression: 'gzip' }]);
      }
      const { peakMegabytes: ofSmall } = await pull(`of-${small}`);
      const { peakMegabytes: ofLarge } = await pull(`of-${large}`);
      // Holding the layer in any form, compressed or not, would take 72 MB more at least.
      expect(ofLarge - ofSmall).toBeLessThan(45);
      expect(ofSmall).toBeGreaterThan(20);
    } finally {
      await registry.stop();
      rmSync(directory, { recursive: true, force: true });
    }
  },
);
