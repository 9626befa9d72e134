/**
 * `npm run check`: types, lint, generated code, import arrows between rooms, unused code, licences, texts that must not
 * stand in the repository. Prints one line a check with its duration and exits 1 if any failed.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { checkArrows } from './arrows.ts';
import { checkLicences } from './licences.ts';
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
  // Building the engine again takes a minute; CI does it where the recorded toolchain is there.
  [
    'policy engine artifact',
    program('node', 'rego/scripts/build.ts', '--check', ...(process.env['CI'] ? [] : ['--no-rebuild'])),
  ],
];

let failed = 0;
for (const [name, run] of checks) {
  const start = performance.now();
  const problems = await run();
  console.log(`${problems.length === 0 ? 'ok    ' : 'FAILED'} ${name} (${Math.round(performance.now() - start)} ms)`);
  for (const problem of problems) console.log(`  ${problem}`);
  if (problems.length > 0) failed += 1;
}
process.exit(failed === 0 ? 0 : 1);
