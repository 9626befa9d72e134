import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { generate } from './generate.ts';

const committed = resolve(import.meta.dirname, '../gen');
const folder = mkdtempSync(join(tmpdir(), 'sealpod-generate-'));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function contents(root: string): Map<string, string> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path): [string, string] => [path.slice(root.length + 1), readFileSync(path, 'utf8')])
      .sort(([a], [b]) => a.localeCompare(b)),
  );
}

it('the committed code is exactly what the .proto files generate', () => {
  const output = join(folder, 'gen');
  generate(output);
  const fresh = contents(output);
  expect(fresh.size).toBeGreaterThan(15);
  expect([...contents(committed).keys()]).toEqual([...fresh.keys()]);
  expect(contents(committed)).toEqual(fresh);
});
