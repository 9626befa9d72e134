import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { version } from '../version.ts';
import { bundleGuestAgent, type GuestAgentBundle, requireGuestSources } from './bundle.ts';

const maxScriptBytes = 2 * 1024 * 1024;
let directory: string;
let bundle: GuestAgentBundle;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-bundle-'));
  bundle = await bundleGuestAgent(join(directory, 'one'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function run(script: string): string {
  // Nothing of the repository may be needed: an empty environment, another working directory.
  return execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: '/', env: {}, encoding: 'utf8' });
}

describe('bundle of the guest agent', () => {
  it('runs on Node with nothing beside it', () => {
    const agent = join(directory, 'one/guest-agent.mjs');
    expect(execFileSync(process.execPath, [agent, '--version'], { cwd: '/', env: {}, encoding: 'utf8' })).toBe(
      `${version}\n`,
    );
  });

  it(`has less than ${maxScriptBytes} bytes of script`, () => {
    const scripts = bundle.files.filter((file) => file.endsWith('.mjs'));
    expect(scripts).toEqual(['guest-agent.mjs', 'rego-worker.mjs', 'terminal.mjs']);
    const bytes = scripts.reduce((sum, file) => sum + statSync(join(directory, 'one', file)).size, 0);
    expect(bytes).toBeGreaterThan(100_000);
    expect(bytes).toBeLessThan(maxScriptBytes);
  });

  it('is equal bit by bit in a second build', async () => {
    const digests = (folder: string): string[] =>
      bundle.files.map((file) =>
        createHash('sha256')
          .update(readFileSync(join(directory, folder, file)))
          .digest('hex'),
      );
    const second = await bundleGuestAgent(join(directory, 'two'));
    expect(second).toEqual(bundle);
    expect(digests('two')).toEqual(digests('one'));
  });

  it('holds nothing of the host, and says so where it would', () => {
    expect(bundle.inputs).toContain('guest-agent/main.ts');
    for (const input of [
      'kbs/server/app.ts',
      'node_modules/express/index.js',
      'guest-agent/testing/x.ts',
      'storage/index.ts',
    ]) {
      expect(() => requireGuestSources([...bundle.inputs, input])).toThrow('sources of the host');
    }
  });

  it('names no path of the machine that built it', () => {
    for (const file of bundle.files.filter((name) => name.endsWith('.mjs'))) {
      expect(readFileSync(join(directory, 'one', file), 'utf8')).not.toContain(process.cwd());
    }
  });

  it('evaluates a policy with the worker and engine beside it', async () => {
    const at = (file: string): URL => pathToFileURL(join(directory, 'one', file));
    const engine = createRegoEngine({ workerUrl: at('rego-worker.mjs'), wasmUrl: at('regorus.wasm') });
    try {
      const policy = 'package p\nallow if input.x == 1\n';
      const { values } = await engine.evaluate({ policy, rules: ['data.p.allow'], input: { x: 1 } });
      expect(values).toEqual({ 'data.p.allow': true });
    } finally {
      await engine.close();
    }
  });

  it('opens a terminal with the native file beside it', () => {
    const terminal = JSON.stringify(join(directory, 'one/terminal.mjs'));
    const script = `
      const { spawn } = await import(${terminal});
      const shell = spawn('/bin/echo', ['terminal works'], {});
      shell.onData((text) => process.stdout.write(text));
      shell.onExit(({ exitCode }) => process.exit(exitCode));`;
    expect(run(script)).toContain('terminal works');
  });
});
