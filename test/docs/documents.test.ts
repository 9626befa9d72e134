import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root, run } from '../e2e/environment.ts';

/** A fenced shell block whose information string says that it is to be run, or that it must fail. */
interface Block {
  readonly kind: 'run' | 'fails';
  readonly text: string;
}

function blocksOf(markdown: string): Block[] {
  return [...markdown.matchAll(/^```sh (run|fails)\n(.*?)^```$/gms)].map(([, kind, text = '']) => ({
    kind: kind === 'fails' ? 'fails' : 'run',
    text,
  }));
}

/** One script of all blocks, so that what a block exports holds for the next one, as for a reader. */
function scriptOf(blocks: readonly Block[]): string {
  const steps = blocks.map(({ kind, text }, index) => {
    const announced = `echo "block ${index + 1}" >&2\n`;
    return kind === 'run'
      ? `${announced}${text}`
      : `${announced}if (\n${text}); then echo "this should have failed" >&2; exit 1; fi\n`;
  });
  return `set -euo pipefail\n${steps.join('')}`;
}

const pages = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md'))
  .map((name) => ({ name, text: readFileSync(join(root, 'docs', name), 'utf8') }));

describe('pages of the documentation', () => {
  for (const { name, text } of pages.filter((page) => blocksOf(page.text).length > 0)) {
    it(`${name}: its commands do what it says`, async () => {
      const home = mkdtempSync(join(tmpdir(), 'sealpod-docs-'));
      const environment = { ...process.env, SEALPOD_HOME: home };
      try {
        const result = await run('bash', ['-c', scriptOf(blocksOf(text))], environment);
        expect(result.code, `${result.stdout}\n${result.stderr}`).toBe(0);
      } finally {
        await run(join(root, 'cli/bin/sealpod'), ['down'], environment);
        rmSync(home, { recursive: true, force: true });
      }
    });
  }

  it('link only to files that exist', () => {
    const readme = { name: '../README.md', text: readFileSync(join(root, 'README.md'), 'utf8') };
    const broken = [...pages, readme].flatMap(({ name, text }) =>
      [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)]
        .map(([, target = '']) => join(root, 'docs', name, '..', target))
        .filter((path) => !existsSync(path))
        .map((path) => `${name}: ${path}`),
    );
    expect(broken).toEqual([]);
  });
});
