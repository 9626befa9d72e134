import { createContext, runInContext } from 'node:vm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { beforeAll, describe, expect, it } from 'vitest';
import { bundlePortable, maxBundleBytes } from './bundle.ts';
import * as onNode from './index.ts';
import { allCalls, type NamedCall } from './testing/calls.ts';
import { drive } from './testing/drive.ts';

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
    for (const [index, { name, code }] of calls.entries())
      expect([name, expected[index]?.verdict.code]).toEqual([name, code]);
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

  it('gives the same verdicts and claims where there is nothing of Node', { timeout: 120_000 }, async () => {
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
