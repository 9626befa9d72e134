import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Decision } from '@sealpod/kbs/audit';
import { alterPodVmImage } from '@sealpod/peer-pods/pod-vm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ContainerStarts } from './container-starts.ts';
import { TestEnvironment } from './environment.ts';

/** One environment for all tests of this file: each test runs pods of its own name. */
const environment = new TestEnvironment();
const message = 'only an attested guest reads this';
const digestPattern = /^[0-9a-f]{64}$/;
let starts: ContainerStarts;

/** Correlation id that an error message points to. */
function correlationOf(stderr: string): string {
  const id = /sealpod explain ([0-9a-f-]{16,})/.exec(stderr)?.[1];
  if (id === undefined) throw new Error(`no correlation id in: ${stderr}`);
  return id;
}

function leaves(verdict: Verdict): Verdict[] {
  const children = verdict.children ?? [];
  return children.length === 0 ? [verdict] : children.flatMap(leaves);
}

/**
 * Runs a pod that must not come to run: the verb fails, containerd starts no container in that time, and the pod is gone
 * with its machine. Returns what the user is told.
 */
async function fails(image: string, name: string, ...options: readonly string[]): Promise<string> {
  const before = starts.images();
  const result = await environment.sealpod('run', image, '--name', name, ...options);
  expect(result.code, result.stderr).toBe(1);
  expect(starts.images()).toEqual(before);
  await expectNoPod(name);
  return result.stderr;
}

/** As `fails`, where it is the key broker that refuses: it has released nothing. Returns what it recorded, too. */
async function refused(
  image: string,
  name: string,
  ...options: readonly string[]
): Promise<{ readonly stderr: string; readonly decisions: readonly Decision[] }> {
  const stderr = await fails(image, name, ...options);
  const decisions = (await environment.json('explain', correlationOf(stderr))) as readonly Decision[];
  expect(decisions.filter(({ kind, outcome }) => kind === 'resource' && outcome === 'OK')).toEqual([]);
  return { stderr, decisions };
}

async function expectNoPod(name: string): Promise<void> {
  const { pods } = (await environment.json('status')) as { readonly pods: readonly { readonly name: string }[] };
  expect(pods.filter((pod) => pod.name === name)).toEqual([]);
}

function failedChecks(decisions: readonly Decision[]): Verdict[] {
  return decisions
    .flatMap((decision) => (decision.verdict === undefined ? [] : leaves(decision.verdict)))
    .filter((verdict) => verdict.code !== 'OK');
}

beforeAll(async () => {
  const up = await environment.sealpod('up', '--detach', '--no-demonstration');
  expect(up.code, up.stderr).toBe(0);
  starts = new ContainerStarts(String(environment.state()['containerdSocket']));
  await environment.json('image', 'demo', 'plain/hello:1', '--message', message);
  await environment.json('image', 'encrypt', 'plain/hello:1', 'sealed/hello:1', '--key', 'default/image-key/hello');
});
afterAll(async () => {
  await starts?.close();
  await environment.sealpod('down');
  expect(environment.residue()).toEqual([]);
  await environment.remove();
});

describe('a sealed pod', () => {
  it('runs an encrypted image after attestation, and the host holds neither key nor layer', async () => {
    const run = await environment.sealpod('run', 'sealed/hello:1', '--name', 'hello', '--allow-exec');
    expect(run.code, run.stderr).toBe(0);
    await expect
      .poll(async () => (await environment.sealpod('logs', 'hello')).stdout, { timeout: 20_000 })
      .toContain(message);

    // What the refusals below rely on: such a start is seen.
    await expect.poll(() => starts.images()).toEqual([expect.stringContaining('/sealed/hello@sha256:')]);

    const explained = (await environment.json('explain', '--last', '--all')) as readonly Decision[];
    expect(explained.map(({ kind, outcome }) => [kind, outcome])).toEqual([
      ['auth', 'OK'],
      ['attest', 'OK'],
      ['resource', 'OK'],
    ]);
    expect(explained[1]?.subject.submods).toEqual({ cpu0: 'affirming' });

    // What containerd stored of the encrypted image: manifest and configuration, no layer in either form.
    const blobs = join(environment.home, 'containerd', 'io.containerd.content.v1.content', 'blobs', 'sha256');
    const stored = existsSync(blobs) ? readdirSync(blobs) : [];
    const manifests = stored.filter((name) => readFileSync(join(blobs, name), 'utf8').includes('+encrypted'));
    expect(manifests.length).toBeGreaterThan(0);
    for (const name of manifests) {
      const { layers } = JSON.parse(readFileSync(join(blobs, name), 'utf8')) as {
        layers: readonly { digest: string }[];
      };
      for (const layer of layers) expect(stored).not.toContain(layer.digest.replace('sha256:', ''));
    }
  });

  it('runs commands, with their exit codes and output, where the measured policy allows it', async () => {
    const cat = await environment.sealpod('exec', 'hello', '--', 'cat', '/message');
    expect(cat).toMatchObject({ code: 0, stdout: `${message}\n` });
    expect(await environment.sealpod('exec', 'hello', '--', 'sh', '-c', 'echo no >&2; exit 7')).toMatchObject({
      code: 7,
      stderr: 'no\n',
    });
  });

  it('S-36: its system calls are filtered by the guest', async () => {
    const status = await environment.sealpod('exec', 'hello', '--', 'cat', '/proc/self/status');
    expect(status.stdout).toMatch(/^Seccomp:\s+2$/m);
    const namespaces = await environment.sealpod('exec', 'hello', '--', 'unshare', '-U', 'true');
    expect(namespaces.code).not.toBe(0);
    expect(namespaces.stderr).toMatch(/Operation not permitted|not found/);
  });

  it('gives a command a terminal, and lets a container open its standard output by name', async () => {
    const terminal = await environment.sealpod('exec', '-t', 'hello', '--', 'sh', '-c', 'tty; sleep 0.3');
    expect(terminal.code, terminal.stderr).toBe(0);
    expect(terminal.stdout).toMatch(/^\/dev\/pts\/\d+/);
    const byName = await environment.sealpod('exec', 'hello', '--', 'sh', '-c', 'echo named > /dev/stdout');
    expect(byName).toMatchObject({ code: 0, stdout: 'named\n' });
  });

  it('G-08: neither arguments of the machine nor files that others can read hold a secret', async () => {
    const machines = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && existsSync(`/proc/${name}/cmdline`))
      .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
      .filter((text) => text.includes(environment.runDirectory));
    expect(machines.filter((text) => text.includes('qemu-system')).length).toBeGreaterThan(0);
    const files = readdirSync(join(environment.runDirectory, 'pods'), { recursive: true, withFileTypes: true }).filter(
      (entry) => entry.isFile(),
    );
    const texts = files.map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'));
    for (const text of [...machines, ...texts]) {
      expect(text).not.toContain('PRIVATE KEY');
      expect(text).not.toContain(message);
    }
    expect(statSync(join(environment.home, 'owner-key.pem')).mode & 0o077).toBe(0);
    expect(statSync(join(environment.home, 'kbs')).mode & 0o077).toBe(0);
  });

  it('gives a workload its secrets by REST on loopback of the pod, released by attestation', async () => {
    const put = await environment.sealpodWithInput(
      'a secret for the workload',
      'secret',
      'put',
      'default/workload/one',
      '--file',
      '-',
    );
    expect(put.code, put.stderr).toBe(0);
    const get = await environment.sealpod(
      'exec',
      'hello',
      '--',
      'wget',
      '-q',
      '-O',
      '-',
      'http://127.0.0.1:8006/cdh/resource/default/workload/one',
    );
    expect(get).toMatchObject({ code: 0, stdout: 'a secret for the workload' });
  });

  it('is removed with its machine', async () => {
    expect((await environment.sealpod('remove', 'hello')).code).toBe(0);
    await expectNoPod('hello');
    expect((await environment.sealpod('logs', 'hello')).code).toBe(1);
  });
});

describe('refusals in the real machine', () => {
  it('changed command line: the refusal names the component, expected and actual', async () => {
    const { decisions, stderr } = await refused('sealed/hello:1', 'altered', '--pod-vm-image', 'altered');
    const commandLine = failedChecks(decisions).find((verdict) => /command.line/.test(verdict.check));
    expect(commandLine).toMatchObject({ code: 'RV_MISMATCH' });
    expect(commandLine?.actual).toMatch(digestPattern);
    expect(commandLine?.expected).not.toContain(commandLine?.actual);
    // The guest, and so the host, learns the code and the correlation id only.
    expect(stderr).not.toContain(commandLine?.actual ?? 'missing');
  });

  it('changed root file system: the root hash differs, or dm-verity ends the machine', async () => {
    const images = join(environment.home, 'pod-vm-images');
    const imageDirectory = join(images, 'default');
    await alterPodVmImage({ imageDirectory, outputDirectory: join(images, 'other-root'), change: 'root-file-system' });
    const { decisions } = await refused('sealed/hello:1', 'other-root', '--pod-vm-image', 'other-root');
    const checks = failedChecks(decisions).map((verdict) => [verdict.check, verdict.code]);
    expect(checks).toContainEqual(['root hash', 'RV_MISMATCH']);

    await alterPodVmImage({ imageDirectory, outputDirectory: join(images, 'broken-root'), change: 'root-byte' });
    expect(await fails('sealed/hello:1', 'broken-root', '--pod-vm-image', 'broken-root')).toContain(
      'AGENT_UNREACHABLE',
    );
  });

  it('changed initdata: a guest that was told something else gets nothing', async () => {
    const { decisions } = await refused('sealed/hello:1', 'untold', '--no-enrol', '--env', 'A=1', '--', 'sleep', '77');
    expect(failedChecks(decisions).map((verdict) => [verdict.check, verdict.code])).toContainEqual([
      'initdata',
      'RV_MISMATCH',
    ]);
  });

  it('no reference values: RV_NOT_LOADED', async () => {
    const kept = (await environment.json('refvalue', 'get', 'tpm_kernel')) as { readonly value: readonly string[] };
    expect((await environment.sealpod('refvalue', 'delete', 'tpm_kernel')).code).toBe(0);
    try {
      const { decisions } = await refused('sealed/hello:1', 'unknown-kernel');
      expect(failedChecks(decisions).map((verdict) => [verdict.check, verdict.code])).toContainEqual([
        'kernel',
        'RV_NOT_LOADED',
      ]);
    } finally {
      await environment.json('refvalue', 'put', 'tpm_kernel', ...kept.value);
    }
  });

  it('image changed by a byte in the registry: IMG_DIGEST', async () => {
    await environment.json(
      'image',
      'encrypt',
      'plain/hello:1',
      'sealed/flipped:1',
      '--key',
      'default/image-key/flipped',
    );
    const layer = flipLayer('sealed/flipped');
    try {
      expect(await fails('sealed/flipped:1', 'flipped')).toContain('IMG_DIGEST');
    } finally {
      layer.restore();
    }
  });

  it('wrong layer key: IMG_DECRYPT_KEY', async () => {
    await environment.json(
      'image',
      'encrypt',
      'plain/hello:1',
      'sealed/wrong-key:1',
      '--key',
      'default/image-key/wrong',
    );
    await environment.sealpodWithInput('x'.repeat(32), 'secret', 'put', 'default/image-key/wrong', '--file', '-');
    expect(await fails('sealed/wrong-key:1', 'wrong-key')).toContain('IMG_DECRYPT_KEY');
  });

  it('deny policy: POLICY_DENY, and the decision names the policy', async () => {
    const policy = join(environment.home, 'deny.rego');
    writeFileSync(policy, 'package policy\n\nimport rego.v1\n\ndefault allow := false\n');
    await environment.json('policy', 'put', 'resource', 'nobody', '--file', policy);
    await environment.json(
      'image',
      'encrypt',
      'plain/hello:1',
      'sealed/denied:1',
      '--key',
      'default/image-key/denied',
      '--policy',
      'nobody',
    );
    const { stderr, decisions } = await refused('sealed/denied:1', 'denied');
    expect(stderr).toContain('POLICY_DENY');
    expect(decisions.find((decision) => decision.outcome === 'POLICY_DENY')).toMatchObject({
      policy: { id: 'nobody' },
    });
  });

  it('a key broker with another key than initdata pins: KBS_KEY, and it is asked for nothing', async () => {
    const pinned = String(environment.state()['kbsCertificateFile']);
    const genuine = readFileSync(pinned);
    const before = await environment.json('explain', '--last', '--all');
    execFileSync('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'],
      ...['-subj', '/CN=another key broker', '-keyout', '/dev/null', '-out', pinned],
    ]);
    try {
      expect(await fails('sealed/hello:1', 'other-broker', '--no-enrol')).toContain('KBS_KEY');
    } finally {
      writeFileSync(pinned, genuine);
    }
    expect(await environment.json('explain', '--last', '--all')).toEqual(before);
  });

  it('no key broker at the address of initdata: KBS_UNREACHABLE', async () => {
    const stateFile = join(environment.home, 'state.json');
    const genuine = readFileSync(stateFile, 'utf8');
    const state = environment.state();
    writeFileSync(stateFile, JSON.stringify({ ...state, kbsUrl: `https://${state['address']}:9` }));
    try {
      expect(await fails('sealed/hello:1', 'no-broker', '--no-enrol')).toContain('KBS_UNREACHABLE');
    } finally {
      writeFileSync(stateFile, genuine);
    }
  });
});

/** Flips one byte in the stored layer of a repository, as a hostile registry would. */
function flipLayer(repository: string): { restore(): void } {
  const storage = join(environment.home, 'registry', 'docker', 'registry', 'v2');
  const links = join(storage, 'repositories', repository, '_layers', 'sha256');
  const files = readdirSync(links).map((hex) => join(storage, 'blobs', 'sha256', hex.slice(0, 2), hex, 'data'));
  const layer = files
    .map((file) => ({ file, content: readFileSync(file) }))
    .sort((one, other) => other.content.length - one.content.length)[0];
  if (layer === undefined) throw new Error(`no layer of ${repository}`);
  expect(createHash('sha256').update(layer.content).digest('hex')).toBe(layer.file.split('/').at(-2));
  const changed = Buffer.from(layer.content);
  changed[changed.length >> 1] = (changed[changed.length >> 1] ?? 0) ^ 1;
  writeFileSync(layer.file, changed);
  return { restore: () => writeFileSync(layer.file, layer.content) };
}
