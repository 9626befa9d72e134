import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestEnvironment } from './environment.ts';

const environment = new TestEnvironment();
const files = mkdtempSync(join(tmpdir(), 'sealpod-bad-input-'));
const file = (name: string): string => join(files, name);

/** Arguments, text on standard input, and how the command has to end. */
interface Case {
  readonly args: readonly string[];
  readonly input?: string;
  readonly code: 1 | 2;
  readonly says: RegExp;
}

const wrongUse = (says: RegExp, ...args: readonly string[]): Case => ({ args, code: 2, says });
const refused = (says: RegExp, ...args: readonly string[]): Case => ({ args, code: 1, says });

/** Wrong wherever it is said. */
const anywhere: readonly Case[] = [
  wrongUse(/unknown command 'frobnicate'/, 'frobnicate'),
  wrongUse(/unknown option '--nonsense'/, 'up', '--nonsense'),
  wrongUse(/too many arguments/, 'down', 'everything'),
  wrongUse(/too many arguments/, 'status', 'everything'),
  wrongUse(/too many arguments/, 'doctor', 'everything'),
  wrongUse(/unknown output format/, '-o', 'xml', 'status'),
  wrongUse(/missing required argument 'path'/, 'secret', 'put', '--file', '-'),
  wrongUse(/required option '--file/, 'secret', 'put', 'a/b/c'),
  wrongUse(/missing required argument/, 'policy', 'put', 'resource', '--file', '-'),
  wrongUse(/give one thing to evaluate/, 'policy', 'test', 'resource', '--file', '-'),
  wrongUse(/required option '--file/, 'policy', 'check', 'attestation'),
  wrongUse(/give one source of values/, 'refvalue', 'learn'),
  wrongUse(/required option '--key/, 'refvalue', 'sign', 'values.json'),
  wrongUse(/too many arguments/, 'token-key', 'rotate', 'everything'),
  wrongUse(/unknown command 'frobnicate'/, 'token-key', 'frobnicate'),
  wrongUse(/missing required argument 'file'/, 'verify'),
  wrongUse(/required option '--key/, 'image', 'encrypt', 'a:1', 'b:1'),
  wrongUse(/not a shape of machine/, 'podvm', 'measure', '--shape', '0x0'),
  wrongUse(/missing required argument 'image'/, 'run'),
  wrongUse(/missing required argument 'command'/, 'exec', 'hello'),
  wrongUse(/missing required argument 'pod'/, 'logs'),
  wrongUse(/missing required argument 'pod'/, 'remove'),
];

/** Every verb that needs an environment, where there is none. */
const nowhere: readonly (readonly string[])[] = [
  ['status'],
  ['secret', 'list'],
  ['policy', 'list'],
  ['refvalue', 'list'],
  ['refvalue', 'list', '--candidates'],
  ['refvalue', 'learn', '--tee', 'tpm'],
  ['refvalue', 'approve', 'x'],
  ['token-key', 'list'],
  ['token-key', 'rotate'],
  ['image', 'demo', 'plain/x:1'],
  ['run', 'plain/x:1'],
  ['remove', 'x'],
  ['logs', 'x'],
  ['exec', 'x', '--', 'true'],
  ['explain', '--last'],
];

/** Wrong for an environment that runs. */
const somewhere: readonly Case[] = [
  ...['two/parts', 'a/b/c/d', '../etc/passwd', 'a/b/..', 'a//c', 'a/b/c d', ''].map((path) =>
    wrongUse(/error RES_NAME/, 'secret', 'put', path, '--file', file('text')),
  ),
  wrongUse(/cannot read/, 'secret', 'put', 'a/b/c', '--file', file('absent')),
  wrongUse(/cannot read/, 'secret', 'put', 'a/b/c', '--file', files),
  refused(
    /error [A-Z_]+: the key broker refused/,
    'secret',
    'put',
    'a/b/c',
    '--file',
    file('text'),
    '--policy',
    '../x',
  ),
  refused(/error RES_NOT_FOUND/, 'secret', 'get', 'absent/b/c'),
  refused(/error RES_NOT_FOUND/, 'secret', 'delete', 'absent/b/c'),
  wrongUse(/error RES_NAME/, 'secret', 'get', 'absent'),
  wrongUse(/error RES_NAME/, 'secret', 'delete', 'absent'),
  wrongUse(/cannot read/, '--admin-key', file('absent'), 'secret', 'list'),
  wrongUse(/error USAGE: .*holds no private key/, '--admin-key', file('text'), 'secret', 'list'),
  wrongUse(/error USAGE: .*--kbs-url/, '--kbs-url', 'not a url', 'secret', 'list'),
  refused(/error KBS_UNREACHABLE/, '--kbs-url', 'https://127.0.0.1:9', 'secret', 'list'),
  wrongUse(/unknown policy kind/, 'policy', 'put', 'nonsense', 'x', '--file', file('text')),
  refused(/error POLICY_INVALID/, 'policy', 'put', 'resource', 'broken', '--file', file('text')),
  refused(/refused PUT/, 'policy', 'put', 'resource', '../x', '--file', file('policy.rego')),
  refused(/error NOT_FOUND|refused GET/, 'policy', 'get', 'resource', 'absent'),
  refused(/error NOT_FOUND|refused DELETE/, 'policy', 'delete', 'resource', 'absent'),
  wrongUse(/is no JSON/, 'policy', 'test', 'resource', '--file', file('policy.rego'), '--input', file('text')),
  wrongUse(/give either --file or an id/, 'refvalue', 'put'),
  wrongUse(/give either --file or an id/, 'refvalue', 'put', 'tpm_kernel'),
  wrongUse(/is no JSON/, 'refvalue', 'put', '--file', file('text')),
  wrongUse(/holds no reference values/, 'refvalue', 'put', '--file', file('empty.json')),
  refused(/refused PUT/, 'refvalue', 'put', 'x', 'y', '--expires', 'tomorrow'),
  refused(/refused GET/, 'refvalue', 'get', 'absent'),
  refused(/refused DELETE/, 'refvalue', 'delete', 'absent'),
  ...['diff', 'approve', 'promote', 'retire'].map((step) => refused(/error NOT_FOUND/, 'refvalue', step, 'absent')),
  wrongUse(/unknown state/, 'refvalue', 'list', '--candidates', '--state', 'nonsense'),
  wrongUse(/is no JSON/, 'refvalue', 'learn', '--file', file('text')),
  refused(/error NOT_FOUND/, 'refvalue', 'learn', '--from', 'nobody'),
  wrongUse(/neither JSON nor CBOR/, 'refvalue', 'register', file('text')),
  wrongUse(/cannot read/, 'refvalue', 'sign', file('text'), '--key', file('absent')),
  wrongUse(/holds no private key/, 'refvalue', 'sign', file('text'), '--key', file('text')),
  refused(/error POLICY_INVALID/, 'policy', 'check', 'attestation', '--file', file('text')),
  refused(/error KBS_UNREACHABLE/, '--kbs-url', 'https://127.0.0.1:9', 'token-key', 'rotate'),
  wrongUse(/unknown output format/, '-o', 'xml', 'token-key', 'list'),
  wrongUse(/does not show of which TEE/, 'verify', file('text')),
  wrongUse(/error RES_NAME/, 'image', 'encrypt', 'plain/x:1', 'sealed/x:1', '--key', 'two/parts'),
  refused(/error IMG_/, 'image', 'encrypt', 'plain/absent:1', 'sealed/x:1', '--key', 'a/b/c'),
  refused(/is no OCI image layout/, 'image', 'encrypt', `oci:${files}`, 'sealed/x:1', '--key', 'a/b/c'),
  refused(/error IMG_FORMAT: image reference .* malformed/, 'image', 'demo', 'Not A Reference'),
  refused(/error PROVIDER_IMAGE/, 'podvm', 'measure', '--directory', files),
  wrongUse(/not a pod name/, 'run', 'plain/x:1', '--name', 'Not_A_Name'),
  wrongUse(/not a value for --memory/, 'run', 'plain/x:1', '--memory', 'much'),
  wrongUse(/not a value for --memory/, 'run', 'plain/x:1', '--memory', '1'),
  wrongUse(/not a value for --vcpus/, 'run', 'plain/x:1', '--vcpus', '0'),
  wrongUse(/not an environment variable/, 'run', 'plain/real:1', '--env', 'novalue'),
  refused(/error IMG_FORMAT: image reference .* malformed/, 'run', 'Not A Reference', '--name', 'x'),
  refused(/error IMG_/, 'run', 'plain/absent:1'),
  refused(/there is no pod absent/, 'remove', 'absent'),
  refused(/there is no pod absent/, 'logs', 'absent'),
  refused(/there is no pod absent/, 'exec', 'absent', '--', 'true'),
  wrongUse(/give either a correlation id, a pod or --last/, 'explain'),
  refused(/error [A-Z_]+: /, 'explain', 'nonsense'),
  refused(/no guest has asked/, 'explain', '--last'),
];

async function check({ args, input, code, says }: Case): Promise<void> {
  const result = await environment.sealpodWithInput(input ?? '', ...args);
  expect(result.stderr, result.stdout).toMatch(says);
  expect(result.code, result.stderr).toBe(code);
  expect(result.stderr).not.toMatch(/^ {4}at |INTERNAL/m);
}

/** Everything that a command could have changed. */
async function contents(): Promise<unknown> {
  const lists = [['secret', 'list'], ['policy', 'list'], ['refvalue', 'list'], ['status']];
  return Promise.all(lists.map((args) => environment.json(...args)));
}

const named = (cases: readonly Case[]): [string, Case][] =>
  cases.map((one) => [one.args.join(' ').replaceAll(files, '/files'), one]);

beforeAll(() => {
  writeFileSync(file('text'), 'neither JSON nor Rego nor a key');
  writeFileSync(file('empty.json'), '{}');
  writeFileSync(file('policy.rego'), 'package policy\n\nimport rego.v1\n\ndefault allow := false\n');
});

afterAll(async () => {
  rmSync(files, { recursive: true, force: true });
  await environment.remove();
});

describe('bad input without an environment', () => {
  it.each(named(anywhere))('sealpod %s', (_name, one) => check(one));

  it.each(nowhere.map((args) => [args.join(' '), args] as const))(
    'sealpod %s: there is no environment',
    (_name, args) => check(refused(/error NOT_FOUND: no environment is running/, ...args)),
  );

  it('down where nothing runs is no failure, and makes nothing', async () => {
    expect((await environment.sealpod('down')).code).toBe(0);
    expect(environment.residue()).toEqual([]);
  });
});

describe('bad input in an environment', () => {
  let before: unknown;
  beforeAll(async () => {
    const result = await environment.sealpod('up', '--detach', '--no-demonstration');
    expect(result.code, result.stderr).toBe(0);
    expect((await environment.sealpod('image', 'demo', 'plain/real:1')).code).toBe(0);
    before = await contents();
  });

  it.each(named(somewhere))('sealpod %s', (_name, one) => check(one));

  it('nothing has changed', async () => {
    expect(await contents()).toEqual(before);
  });
});
