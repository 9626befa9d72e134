import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { placePodVmImage, removePodVmImage } from './pod-vm-image-files.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-image-'));
  mkdirSync(join(root, 'from'));
  writeFileSync(join(root, 'from/disk.raw'), 'disk');
  writeFileSync(join(root, 'from/manifest.json'), '{}');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const digest = `sha256:${createHash('sha256').update('disk').digest('hex')}`;

test('places an image whole, again without change, and removes it without residue', async () => {
  const to = join(root, 'to');
  for (const _time of [1, 2]) {
    await placePodVmImage(join(root, 'from'), to, digest);
    expect(readdirSync(to)).toEqual([digest]);
    expect(readFileSync(join(to, digest, 'disk.raw'), 'utf8')).toBe('disk');
  }
  writeFileSync(join(to, digest, 'disk.raw'), 'altered');
  await placePodVmImage(join(root, 'from'), to, digest);
  expect(readFileSync(join(to, digest, 'disk.raw'), 'utf8')).toBe('disk');
  await removePodVmImage(to, digest);
  expect(existsSync(to)).toBe(false);
});

test('refuses a disk of another digest, and leaves nothing of it', async () => {
  writeFileSync(join(root, 'from/disk.raw'), 'another');
  const placing = placePodVmImage(join(root, 'from'), join(root, 'to'), digest);
  await expect(placing).rejects.toMatchObject({ code: 'PROVIDER_IMAGE', detail: { expected: digest } });
  expect(readdirSync(join(root, 'to'))).toEqual([]);
});

test('refuses an OCI image that holds no disk, and a digest that is a path', async () => {
  rmSync(join(root, 'from/disk.raw'));
  const to = join(root, 'to');
  await expect(placePodVmImage(join(root, 'from'), to, digest)).rejects.toThrow('has no disk.raw');
  await expect(placePodVmImage(join(root, 'from'), to, '../../etc')).rejects.toThrow('that is no digest');
  await expect(removePodVmImage(to, '..')).rejects.toThrow('that is no digest');
});
