import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createContext, runInContext } from 'node:vm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import { beforeAll, describe, expect, it } from 'vitest';
import { dcapRules } from '../verifiers/dcap/index.ts';
import { tdxVerifier } from '../verifiers/tdx/index.ts';
import { bundlePortable, maxBundleBytes } from './bundle.ts';
import * as onNode from './index.ts';
import { allCalls } from './testing/calls.ts';
import { drive, type NamedCall } from './testing/drive.ts';
import { recordedCollateralPath, recordedQuoteCall, recordedQuotes } from './testing/tdx-calls.ts';

let bundle: string;
let calls: NamedCall[];
let expected: { readonly verdict: Verdict }[];

beforeAll(async () => {
  bundle = await bundlePortable('iife');
  calls = await allCalls();
  const text = await drive(
    onNode,
    calls.map(({ call }) => call),
  );
  expected = JSON.parse(text) as typeof expected;
}, 120_000);

/** What the standards of the web give a page and the language itself does not; nothing of Node. */
function bareContext(): object {
  const context = createContext({
    crypto: globalThis.crypto,
    CryptoKey: globalThis.CryptoKey,
    atob,
    btoa,
    URL,
    TextDecoder,
    outer: TextEncoder,
  });
  // Arrays of this context's own class, as in a page.
  runInContext(
    '((Outer) => { globalThis.TextEncoder = class { encode(text) { return new Uint8Array(new Outer().encode(text)); } }; })(outer); delete globalThis.outer',
    context,
  );
  return context;
}

describe('the portable entry point', () => {
  it('gives each call its reason code on Node', () => {
    expect(calls.map(({ name }, index) => [name, expected[index]?.verdict.code])).toEqual(
      calls.map(({ name, code }) => [name, code]),
    );
  });

  it.each(recordedQuotes)('gives $name the verdict and claims of the service', async ({ name, at }) => {
    const { evidence, reportData = '', collateral = {} } = recordedQuoteCall(name, at);
    const expectations = { reportData: Buffer.from(reportData, 'hex'), now: new Date(at) };
    const folder = mkdtempSync(join(tmpdir(), 'sealpod-portable-'));
    const storage = await openStorage({ path: join(folder, 'db.sqlite') });
    try {
      const sources = [{ type: 'bundle', path: recordedCollateralPath(name) }] as const;
      const service = tdxVerifier(dcapRules({ sources }, storage, () => expectations.now));
      const served = await service.verify(evidence, { ...expectations, trustedAttestationKeys: [] });
      expect(served.verdict.code).toBe('OK');
      expect(served.claims).toMatchObject({ tcb_status: 'UpToDate', collateral_expiration_status: '0' });
      expect(await onNode.verifyTdx(evidence, expectations, { collateral })).toEqual(served);
    } finally {
      await storage.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it(`fits into ${maxBundleBytes} bytes and names no module of Node`, async () => {
    const module = await bundlePortable();
    const size = Buffer.byteLength(module);
    process.stdout.write(`portable bundle: ${size} bytes\n`);
    expect(size).toBeLessThanOrEqual(maxBundleBytes);
    for (const text of [module, bundle]) {
      expect(text).not.toMatch(/["']node:|\brequire\(|from\s*["']/);
    }
  });

  it('gives the same verdicts and claims where there is nothing of Node', { timeout: 300_000 }, async () => {
    const context = bareContext();
    expect(runInContext('[typeof process, typeof Buffer, typeof require].join()', context)).toBe(
      'undefined,undefined,undefined',
    );
    runInContext(bundle, context);
    const input = JSON.stringify(calls.map(({ call }) => call));
    const text: unknown = await runInContext(`(${drive.toString()})(sealpod, ${input})`, context);
    const results = JSON.parse(String(text)) as unknown[];
    for (const [index, { name }] of calls.entries())
      expect({ name, result: results[index] }).toEqual({ name, result: expected[index] });
  });
});
