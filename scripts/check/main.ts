/**
 * `npm run check`: types, lint, generated code, import arrows between rooms, unused code, licences, texts that must not
 * stand in the repository. Prints one line a check with its duration and exits 1 if any failed.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkArrows } from './arrows.ts';
import { checkLicences } from './licences.ts';
import { reasonCodesPage } from './reason-codes-page.ts';
import { checkTexts } from './texts.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Runs a program; its output is shown only where it failed. */
function program(...command: readonly string[]): () => string[] {
  return () => {
    const [file = '', ...args] = command;
    const result = spawnSync(file, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 });
    if (result.error) return [`${command.join(' ')}: ${result.error.message}`];
    return result.status === 0 ? [] : [`${command.join(' ')}: exit ${result.status}\n${result.stdout}${result.stderr}`];
  };
}

const checks: readonly (readonly [name: string, run: () => string[] | Promise<string[]>])[] = [
  ['types', program('tsc', '-p', '.')],
  ['lint and format', program('biome', 'check', '--max-diagnostics=100', '.')],
  ['arrows between rooms', () => checkArrows(root)],
  ['unused code', program('knip', '--no-progress')],
  ['licences', () => checkLicences(root)],
  ['texts', () => checkTexts(root)],
  ['reason codes page', () => checkPage('docs/reference/reason-codes.md', reasonCodesPage())],
  // Building the engine again takes a minute; CI does it where the recorded toolchain is there.
  [
    'policy engine artifact',
    program('node', 'rego/scripts/build.ts', '--check', ...(process.env['CI'] ? [] : ['--no-rebuild'])),
  ],
];

/** With `--write` the page is written instead of compared. */
function checkPage(path: string, content: string): string[] {
  const file = join(root, path);
  if (process.argv.includes('--write')) writeFileSync(file, content);
  if (existsSync(file) && readFileSync(file, 'utf8') === content) return [];
  return [`${path} is not what the code says; write it with: npm run check -- --write`];
}

let failed = 0;
for (const [name, run] of checks) {
  const start = performance.now();
  const problems = await run();
  console.log(`${problems.length === 0 ? 'ok    ' : 'FAILED'} ${name} (${Math.round(performance.now() - start)} ms)`);
  for (const problem of problems) console.log(`  ${problem}`);
  if (problems.length > 0) failed += 1;
}
process.exit(failed === 0 ? 0 : 1);
