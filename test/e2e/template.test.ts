import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Decision } from '@sealpod/kbs/audit';
import type { SandboxStatus } from '@sealpod/protocol/status';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestEnvironment } from './environment.ts';
import { eventually } from './started.ts';

const skipped =
  process.env['SEALPOD_LONG_TESTS'] === '1' ? undefined : 'boots and clones machines: set SEALPOD_LONG_TESTS=1';
const environment = new TestEnvironment();
/** Milliseconds until the agent of a clone served, where its template was there. */
let cloned = Number.NaN;
const message = 'only an attested guest reads this';
/** Affirms a clone, and nothing else, of everything. */
const clonesOnly = `package policy
import rego.v1
default executables := 33
executables := 3 if input.tpm.template == true
trust_claims := {"executables": executables}
`;

beforeAll(async () => {
  if (skipped !== undefined) return;
  const up = await environment.sealpod('up', '--detach', '--no-demonstration', '--template');
  expect(up.code, up.stderr).toBe(0);
  await environment.json('image', 'demo', 'plain/hello:1', '--message', message);
  await environment.json('image', 'encrypt', 'plain/hello:1', 'sealed/hello:1', '--key', 'default/image-key/hello');
});

afterAll(async () => {
  if (skipped !== undefined) return;
  await environment.sealpod('down');
  expect(environment.residue()).toEqual([]);
  expect(existsSync(templates())).toBe(false);
  await environment.remove();
});

const templates = (): string => join(environment.home, 'adaptor', 'templates');

async function run(image: string, name: string, ...options: readonly string[]): Promise<number> {
  const started = await environment.sealpod('run', image, '--name', name, '--allow-exec', ...options);
  expect(started.code, started.stderr).toBe(0);
  const { pods } = (await environment.json('status', '--pods')) as { readonly pods: readonly SandboxStatus[] };
  const stages = pods.find((pod) => pod.pod.name === name)?.stages ?? [];
  const ms = stages
    .filter(({ stage, part }) => part === undefined && (stage === 'creating-vm' || stage === 'booting'))
    .reduce((sum, { durationMs = 0 }) => sum + durationMs, 0);
  console.log(`${name}: machine created and its agent serving after ${ms} ms`);
  return ms;
}

/** What the adaptor wrote of the keys that guests proved on the agent channel. */
function provedKeys(): Set<string> {
  const log = readFileSync(join(environment.home, 'logs', 'adaptor.log'), 'utf8');
  return new Set([...log.matchAll(/"guestKey":"([0-9a-f]{64})"/g)].map(([, key = '']) => key));
}

it.skipIf(skipped !== undefined)(
  `pods' machines are clones of one template, each with its own keys, and their evidence says so`,
  async () => {
    await run('sealed/hello:1', 'first');
    cloned = await run('sealed/hello:1', 'second');
    for (const name of ['first', 'second']) {
      const said = await environment.sealpod('exec', name, '--', 'cat', '/message');
      expect(said).toMatchObject({ code: 0, stdout: `${message}\n` });
      // Woken clones do not go on with the template's clock.
      const now = await environment.sealpod('exec', name, '--', '/bin/busybox', 'date', '-u', '+%s');
      expect(now.code, now.stderr).toBe(0);
      expect(Math.abs(Number(now.stdout) - Date.now() / 1000)).toBeLessThan(30);
    }
    expect(provedKeys().size).toBe(2);
    const random = await Promise.all(
      ['first', 'second'].map((name) =>
        environment.sealpod('exec', name, '--', '/bin/busybox', 'sha256sum', '/proc/sys/kernel/random/uuid'),
      ),
    );
    expect(random.map(({ code }) => code)).toEqual([0, 0]);
    expect(new Set(random.map(({ stdout }) => stdout)).size).toBe(2);

    const [template, ...others] = readdirSync(templates());
    expect(others).toEqual([]);
    for (const name of readdirSync(join(templates(), template ?? '')))
      expect(statSync(join(templates(), template ?? '', name)).mode & 0o777).toBe(0o600);

    const file = join(environment.home, 'clones-only.rego');
    writeFileSync(file, clonesOnly);
    const tested = await environment.sealpod(
      '-o',
      'json',
      'policy',
      'test',
      'attestation',
      '--file',
      file,
      '--tee',
      'tpm',
    );
    expect(tested.code, tested.stderr).toBe(0);
    expect(tested.stdout).toMatch(/"executables":\s*3\b/);
  },
  400_000,
);

it.skipIf(skipped !== undefined)(
  'a clone is refused where its command line is not named as one of a template',
  async () => {
    expect((await environment.sealpod('refvalue', 'delete', 'tpm_template_command_line')).code).toBe(0);
    const refused = await environment.sealpod('run', 'sealed/hello:1', '--name', 'third');
    expect(refused.code, refused.stdout).toBe(1);
    const id = /sealpod explain ([0-9a-f-]{16,})/.exec(refused.stderr)?.[1] ?? '';
    const decisions = (await environment.json('explain', id)) as readonly Decision[];
    expect(decisions.filter(({ kind, outcome }) => kind === 'resource' && outcome === 'OK')).toEqual([]);
    expect(decisions.map(({ outcome }) => outcome)).toContain('POLICY_DENY');
    await eventually('the end of the refused machine', async () => {
      const { pods } = (await environment.json('status')) as { readonly pods: readonly { readonly name: string }[] };
      return pods.every(({ name }) => name !== 'third');
    });
  },
  200_000,
);

it.skipIf(skipped !== undefined)(
  'a machine that boots takes longer',
  async () => {
    const booted = await run('plain/hello:1', 'booted', '--pod-vm-image', 'default');
    expect(cloned).toBeLessThan(0.7 * booted);
  },
  400_000,
);
