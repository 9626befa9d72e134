import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createKbs, type Kbs } from '@sealpod/kbs';
import { parseKbsConfig } from '@sealpod/kbs/config';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { runCommandLine } from '../run.ts';

const directory = mkdtempSync(join(tmpdir(), 'sealpod-cli-refvalue-'));
const file = (name: string): string => join(directory, name);
const admins = { ada: generateKeyPairSync('ed25519'), grace: generateKeyPairSync('ed25519') };
const vendor = generateKeyPairSync('ed25519');
let kbs: Kbs;

const pem = (key: KeyObject): string =>
  key.export({ type: key.type === 'private' ? 'pkcs8' : 'spki', format: 'pem' }).toString();

beforeAll(async () => {
  const keys = Object.entries(admins).map(([name, { publicKey, privateKey }]) => {
    writeFileSync(file(`${name}.pub`), pem(publicKey));
    writeFileSync(file(`${name}.key`), pem(privateKey), { mode: 0o600 });
    return { publicKeyFile: file(`${name}.pub`) };
  });
  writeFileSync(file('vendor.pub'), pem(vendor.publicKey));
  writeFileSync(file('vendor.key'), pem(vendor.privateKey), { mode: 0o600 });
  const config = {
    listen: { host: '127.0.0.1', port: 0 },
    dataDirectory: 'data',
    insecureHttp: true,
    admin: { keys },
    attestationService: {
      type: 'builtin',
      sample: true,
      referenceValues: { approvals: 2, signers: [{ name: 'vendor', publicKeyFile: 'vendor.pub', ids: ['tpm_*'] }] },
    },
  };
  kbs = await createKbs(parseKbsConfig(config, directory), { log: pino({ level: 'silent' }) });
  writeFileSync(
    file('values.json'),
    JSON.stringify({ version: 1, image: 'x', reference_values: { svn: ['1'], launch_digest: ['abcde'] } }),
  );
  writeFileSync(file('text'), 'neither JSON nor Rego');
  writeFileSync(file('list.json'), '[]');
  writeFileSync(file('sample.json'), JSON.stringify({ svn: '1', report_data: Buffer.alloc(48).toString('base64') }));
  writeFileSync(file('forged.json'), JSON.stringify({ svn: 1, report_data: 7 }));
  writeFileSync(
    file('policy.rego'),
    'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2} if input.sample.svn in query_reference_value("svn")\n',
  );
  writeFileSync(
    file('outside.rego'),
    'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2} if { input.never; http.send({}) }\n',
  );
  writeFileSync(
    file('resource.rego'),
    'package policy\nimport rego.v1\ndefault allow := false\nallow if input.x == data.y\n',
  );
  writeFileSync(file('x.json'), '{"x":1}');
  writeFileSync(file('y.json'), '{"y":1}');
});
afterAll(async () => {
  await kbs.close(200);
  rmSync(directory, { recursive: true, force: true });
});

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one command in this process, as `main.ts` does in one of its own. */
async function sealpod(...args: readonly string[]): Promise<Result> {
  const [out, err]: string[][] = [[], []];
  const capture = (to: string[] | undefined) => (text: string | Uint8Array) => {
    to?.push(String(text));
    return true;
  };
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation(capture(out)),
    vi.spyOn(process.stderr, 'write').mockImplementation(capture(err)),
  ];
  process.exitCode = 0;
  try {
    await runCommandLine(['--home', file('home'), ...args]);
    return { code: Number(process.exitCode), stdout: (out ?? []).join(''), stderr: (err ?? []).join('') };
  } finally {
    for (const spy of spies) spy.mockRestore();
    process.exitCode = 0;
  }
}
const as = (who: keyof typeof admins, ...args: readonly string[]): Promise<Result> =>
  sealpod('--kbs-url', kbs.address, '--admin-key', file(`${who}.key`), ...args);
const json = async (who: keyof typeof admins, ...args: readonly string[]) => {
  const { code, stdout, stderr } = await as(who, '-o', 'json', ...args);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
};

describe('sealpod refvalue', () => {
  it('learn, diff, approve, promote, retire', async () => {
    const learned = await json(
      'ada',
      'refvalue',
      'learn',
      '--file',
      file('values.json'),
      '--expires',
      '2099-01-01T00:00:00Z',
    );
    expect(learned).toMatchObject({
      state: 'quarantined',
      values: { svn: ['1'] },
      expiresAt: '2099-01-01T00:00:00.000Z',
    });
    const { id } = learned as { id: string };
    expect(await json('ada', 'refvalue', 'diff', id)).toMatchObject({
      approvals: { have: 0, need: 2 },
      differences: [
        { id: 'svn', change: 'new' },
        { id: 'launch_digest', change: 'new' },
      ],
    });
    await json('ada', 'refvalue', 'approve', id);
    const early = await as('ada', 'refvalue', 'promote', id);
    expect([early.code, early.stderr]).toEqual([1, expect.stringMatching(/error RV_QUARANTINED: .*lacks approvals/)]);
    expect(await json('grace', 'refvalue', 'approve', id)).toMatchObject({ state: 'approved' });
    expect(await json('grace', 'refvalue', 'promote', id, '--replace')).toMatchObject({ state: 'promoted' });
    expect(await json('ada', 'refvalue', 'list')).toMatchObject([{ id: 'launch_digest' }, { id: 'svn', value: ['1'] }]);
    expect((await as('ada', 'refvalue', 'list')).stdout).toMatch(/svn +all +\["1"\] .* promoted/);
    expect((await as('ada', 'refvalue', 'diff', id)).code).toBe(1);
    expect(await json('ada', 'refvalue', 'list', '--candidates', '--state', 'promoted')).toMatchObject([{ id }]);
    expect(await json('ada', 'refvalue', 'retire', id)).toMatchObject({ state: 'retired' });
    expect(await json('ada', 'refvalue', 'list')).toEqual([]);
  });

  it('learns from evidence that verifies on this machine, and from no other', async () => {
    const refused = await as('ada', 'refvalue', 'learn', '--evidence', file('sample.json'));
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringMatching(/error EV_TEE_UNSUPPORTED: .*does not verify/),
    ]);
  });

  it('sign makes what register takes: of an enrolled signer, and of nobody else', async () => {
    writeFileSync(
      file('release.json'),
      JSON.stringify({ version: 1, image: 'x', reference_values: { tpm_kernel: ['ab'] } }),
    );
    const release = file('release.dsse.json');
    const sign = (key: string, ...args: readonly string[]) =>
      sealpod('refvalue', 'sign', file('release.json'), '--key', file(key), ...args);
    const expires = new Date(Date.now() + 86_400_000).toISOString();
    const subject = ['--subject', `pod-vm@sha256:${'ab'.repeat(32)}`];
    const made = await sign('vendor.key', '--out', release, '--expires', expires, '--scope', 'default', ...subject);
    expect([made.code, made.stdout], made.stderr).toEqual([0, expect.stringContaining(release)]);
    expect(await json('ada', 'refvalue', 'register', release)).toMatchObject({ type: 'dsse' });
    expect(await json('ada', 'refvalue', 'get', 'tpm_kernel', '--scope', 'default')).toMatchObject({
      value: ['ab'],
      expiresAt: expires,
      provenance: { kind: 'signed', signers: ['vendor'] },
    });
    const foreign = await sign('ada.key');
    expect([foreign.code, JSON.parse(foreign.stdout)]).toEqual([
      0,
      expect.objectContaining({ payloadType: 'application/vnd.in-toto+json' }),
    ]);
    writeFileSync(file('foreign.dsse.json'), foreign.stdout);
    const refused = await as('ada', 'refvalue', 'register', file('foreign.dsse.json'));
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('RV_SIGNATURE')]);
    const both = await sealpod(
      '-o',
      'json',
      'refvalue',
      'sign',
      file('foreign.dsse.json'),
      '--key',
      file('vendor.key'),
      '--out',
      file('both.json'),
    );
    expect(JSON.parse(both.stdout)).toMatchObject({ signatures: [expect.any(String), expect.any(String)] });
    // The second signer sees what the first has put there.
    expect(both.stderr).toMatch(
      /^signed:\n {2}of: release\.json@sha256:[0-9a-f]{64}\n(?: {2}.*\n){2} {2}for: every policy\n {2}tpm_kernel = \["ab"\]\n$/,
    );
    expect((await as('ada', 'refvalue', 'register', file('both.json'))).code).toBe(0);
  });

  it('sign shows values to their end, and nothing that steers a terminal', async () => {
    const long = 'ab'.repeat(400);
    writeFileSync(file('long.json'), JSON.stringify({ tpm_kernel: [long, '\u202e\u009bcd'] }));
    const { code, stderr } = await sealpod('refvalue', 'sign', file('long.json'), '--key', file('vendor.key'));
    expect([code, stderr]).toEqual([0, expect.stringContaining(`  tpm_kernel = ["${long}","??cd"]\n`)]);
  });
});

describe('sealpod policy', () => {
  it('check tells what an upload would refuse, without a key broker', async () => {
    const good = await sealpod('-o', 'json', 'policy', 'check', 'attestation', '--file', file('policy.rego'));
    expect([good.code, JSON.parse(good.stdout)]).toEqual([
      0,
      { ok: true, kind: 'attestation', referenceValueIds: ['svn'], dryRuns: [] },
    ]);
    const outside = await sealpod('policy', 'check', 'attestation', '--file', file('outside.rego'));
    expect([outside.code, outside.stderr]).toEqual([
      1,
      expect.stringMatching(/error POLICY_INVALID: the policy calls http.send/),
    ]);
    expect((await sealpod('policy', 'check', 'resource', '--file', file('resource.rego'))).code).toBe(0);
    expect((await sealpod('policy', 'check', 'resource', '--file', file('policy.rego'))).stderr).toContain(
      'no rule allow',
    );
  });

  it('test evaluates on this machine where everything is given', async () => {
    const values = ['--reference-values', file('values.json')];
    const result = await sealpod(
      '-o',
      'json',
      'policy',
      'test',
      'attestation',
      '--file',
      file('policy.rego'),
      '--evidence',
      file('sample.json'),
      ...values,
    );
    expect(result.stderr).toBe('');
    expect(JSON.parse(result.stdout)).toMatchObject({
      values: { 'data.policy.trust_claims': { hardware: 2 } },
      referenceValueIds: ['svn'],
    });
    const resource = ['policy', 'test', 'resource', '--file', file('resource.rego'), '--input', file('x.json')];
    expect((await sealpod(...resource, '--data', file('y.json'))).code).toBe(0);
    expect((await sealpod(...resource)).code).toBe(1);
  });

  it('test asks the key broker for what is not given', async () => {
    const absent = await as('ada', 'policy', 'test', 'attestation', '--file', file('policy.rego'), '--tee', 'snp');
    expect([absent.code, absent.stderr]).toEqual([1, expect.stringMatching(/error NOT_FOUND/)]);
    const known = await json(
      'ada',
      'policy',
      'test',
      'attestation',
      '--file',
      file('policy.rego'),
      '--input',
      file('x.json'),
    );
    expect(known).toMatchObject({ values: {} });
  });
});

describe('sealpod verify', () => {
  it('exits 0 only where every check holds', async () => {
    const verified = await sealpod(
      '-o',
      'json',
      'verify',
      file('sample.json'),
      '--allow-sample',
      '--report-data',
      '00'.repeat(48),
    );
    expect(verified.code).toBe(0);
    expect(JSON.parse(verified.stdout)).toMatchObject({
      verified: true,
      bound: true,
      tee: 'sample',
      submodules: [{ claims: { svn: '1' } }],
    });
    const other = await sealpod(
      'verify',
      file('sample.json'),
      '--allow-sample',
      '--report-data',
      '01'.repeat(48),
      '--explain',
    );
    expect(other.code).toBe(1);
    expect(other.stdout).toMatch(/NOT .*EV_BINDING_MISMATCH\n +expected +01.*\n +actual +00.*\n[\s\S]*to do/);
    const unbound = await sealpod('verify', file('sample.json'), '--allow-sample', '--explain');
    expect(unbound.stdout).toMatch(/sample: verified\n.*replay does not show[\s\S]*"launch_digest": "abcde"/);
    const unsupported = await sealpod('verify', file('sample.json'));
    expect([unsupported.code, unsupported.stdout]).toEqual([
      1,
      expect.stringMatching(/EV_TEE_UNSUPPORTED[\s\S]*NOT verified/),
    ]);
    expect((await sealpod('verify', file('forged.json'), '--allow-sample')).stdout).toContain('EV_FORMAT');
  });
});

describe('bad input', () => {
  it.each([
    [2, /missing required argument 'file'/, ['verify']],
    [2, /cannot read/, ['verify', file('absent')]],
    [2, /cannot read/, ['verify', directory]],
    [2, /does not show of which TEE/, ['verify', file('text')]],
    [2, /does not show of which TEE/, ['verify', file('x.json')]],
    [2, /there is no such TEE/, ['verify', file('x.json'), '--tee', 'abacus']],
    [2, /not hexadecimal/, ['verify', file('sample.json'), '--report-data', 'xyz']],
    [2, /no folder of collateral/, ['verify', file('sample.json'), '--collateral', file('absent')]],
    [2, /unknown output format/, ['-o', 'xml', 'verify', file('sample.json')]],
    [2, /give one source of values/, ['refvalue', 'learn']],
    [2, /give one source of values/, ['refvalue', 'learn', '--file', file('values.json'), '--tee', 'snp']],
    [2, /give one source of values/, ['refvalue', 'learn', '--tee', 'snp', '--collateral', directory]],
    [2, /is no JSON/, ['refvalue', 'learn', '--file', file('text')]],
    [2, /holds no reference values/, ['refvalue', 'learn', '--file', file('list.json')]],
    [1, /refused POST/, ['refvalue', 'learn', '--file', file('values.json'), '--expires', 'tomorrow']],
    [1, /refused POST/, ['refvalue', 'learn', '--file', file('values.json'), '--scope', '../x']],
    [1, /error NOT_FOUND/, ['refvalue', 'learn', '--from', 'nobody']],
    [2, /missing required argument 'candidate'/, ['refvalue', 'diff']],
    [1, /error NOT_FOUND/, ['refvalue', 'diff', 'absent']],
    [1, /error NOT_FOUND/, ['refvalue', 'approve', 'absent']],
    [1, /error NOT_FOUND/, ['refvalue', 'promote', 'absent']],
    [1, /error NOT_FOUND/, ['refvalue', 'retire', '../../status']],
    [2, /unknown state/, ['refvalue', 'list', '--candidates', '--state', 'nonsense']],
    [2, /--state goes with --candidates/, ['refvalue', 'list', '--state', 'approved']],
    [2, /neither JSON nor CBOR/, ['refvalue', 'register', file('text')]],
    [2, /holds no signed reference values/, ['refvalue', 'register', file('x.json')]],
    [2, /required option '--key/, ['refvalue', 'sign', file('values.json')]],
    [2, /cannot read/, ['refvalue', 'sign', file('values.json'), '--key', file('absent')]],
    [2, /cannot read/, ['refvalue', 'sign', file('absent'), '--key', file('vendor.key')]],
    [2, /cannot write/, ['refvalue', 'sign', file('values.json'), '--key', file('vendor.key'), '--out', directory]],
    [2, /holds no private key/, ['refvalue', 'sign', file('values.json'), '--key', file('vendor.pub')]],
    [2, /error USAGE/, ['refvalue', 'sign', file('text'), '--key', file('vendor.key')]],
    [2, /error USAGE/, ['refvalue', 'sign', file('list.json'), '--key', file('vendor.key')]],
    [2, /names no digest/, ['refvalue', 'sign', file('x.json'), '--key', file('vendor.key'), '--subject', 'image']],
    [
      1,
      /expiresAt is not a date/,
      ['refvalue', 'sign', file('x.json'), '--key', file('vendor.key'), '--expires', 'soon'],
    ],
    [
      1,
      /error RV_EXPIRED/,
      ['refvalue', 'sign', file('x.json'), '--key', file('vendor.key'), '--expires', '2020-01-01T00:00:00Z'],
    ],
    [1, /error RV_QUARANTINED/, ['refvalue', 'put', 'svn', '1']],
    [2, /give one thing to evaluate/, ['policy', 'test', 'attestation', '--file', file('policy.rego')]],
    [2, /unknown policy kind/, ['policy', 'check', 'nonsense', '--file', file('policy.rego')]],
    [1, /error POLICY_INVALID/, ['policy', 'check', 'attestation', '--file', file('text')]],
    [2, /required option '--file/, ['policy', 'check', 'attestation']],
  ] as const)('%i %s: %j', async (code, says, args) => {
    const result = await as('ada', ...args);
    expect(result.stderr, result.stdout).toMatch(says);
    expect(result.code, result.stderr).toBe(code);
    expect(result.stderr).not.toMatch(/^ {4}at |INTERNAL/m);
  });
});
