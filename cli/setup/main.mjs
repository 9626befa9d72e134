// Entry of every npm script: makes sure that what the script needs is there, then runs it on the pinned Node.
// Without dependencies, for Node 18 and newer. A second run finds everything in place and does none of it again.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { installCommand, missing, runNeeds, testNeeds } from './needs.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const stamp = `${root}/node_modules/.sealpod-setup`;
const pinnedNode = `${root}/node_modules/node/bin/node`;

/** What each npm script runs once the machine is ready; `needs` are the programs it cannot do without. */
const scripts = {
  start: { needs: runNeeds, run: ['cli/main.ts', 'up'] },
  test: { needs: [...runNeeds, ...testNeeds], run: ['node_modules/vitest/vitest.mjs', 'run'] },
  check: { needs: [], run: ['scripts/check/main.ts'] },
  bench: { needs: [...runNeeds, ...testNeeds], run: ['bench/main.ts'] },
};

/** @param {string} message @param {number} code @returns {never} */
function stop(message, code) {
  console.error(message);
  process.exit(code);
}

function installNpmPackages() {
  const lock = createHash('sha256')
    .update(readFileSync(`${root}/package-lock.json`))
    .digest('hex');
  if (existsSync(stamp) && existsSync(pinnedNode) && readFileSync(stamp, 'utf8') === lock) return;
  console.error('setup: installing npm packages (once)');
  const result = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (result.status !== 0)
    stop('setup: npm ci failed; expected exit 0. Check the network, then run the command again.', 1);
  if (!existsSync(pinnedNode)) {
    stop(
      `setup: ${pinnedNode} is missing: npm did not run the install script of the package "node". Run: npm rebuild node`,
      1,
    );
  }
  writeFileSync(stamp, lock);
}

/** @param {import('./needs.mjs').Need[]} needs @param {boolean} yes */
async function installDebianPackages(needs, yes) {
  const absent = missing(needs);
  if (absent.length === 0) return;
  const command = installCommand(absent);
  for (const need of absent)
    console.error(`setup: missing ${need.name} (Debian package ${need.debianPackage}): ${need.why}`);
  const isRoot = process.getuid?.() === 0;
  let allowed = isRoot && yes;
  if (isRoot && !yes && process.stdin.isTTY) {
    const prompt = createInterface({ input: process.stdin, output: process.stderr });
    allowed = /^(y|yes|)$/i.test((await prompt.question(`setup: run this now? ${command} [Y/n] `)).trim());
    prompt.close();
  }
  if (!allowed) stop(`setup: install them as root, then run this again:\n  ${command}`, 2);
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const result = spawnSync('sh', ['-c', command], { stdio: ['ignore', 2, 2], env: environment });
  if (result.status !== 0) stop(`setup: the package installation failed; expected exit 0 of:\n  ${command}`, 1);
  const still = missing(needs);
  if (still.length > 0)
    stop(`setup: still missing after the installation: ${still.map((need) => need.name).join(', ')}`, 1);
}

const [name = '', ...rest] = process.argv.slice(2);
const script = scripts[name];
if (script === undefined)
  stop(`setup: unknown script "${name}"; expected one of ${Object.keys(scripts).join(', ')}`, 2);
const yes = rest.includes('--yes') || process.env.CI === 'true';
const passed = rest.filter((argument) => argument !== '--yes');

installNpmPackages();
await installDebianPackages(script.needs, yes);

const child = spawn(pinnedNode, [...script.run, ...passed], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${root}/node_modules/.bin:${process.env.PATH}` },
});
// A terminal sends SIGINT to the child as well; this process must outlive it, or the shell returns before it cleaned up.
process.on('SIGINT', () => child.exitCode);
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)));
