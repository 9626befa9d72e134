import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as onNode from '@sealpod/attestation-service/portable';
import type { Verdict } from '@sealpod/protocol/verdict';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundlePortable } from '../../attestation-service/portable/bundle.ts';
import { allCalls } from '../../attestation-service/portable/testing/calls.ts';
import { drive } from '../../attestation-service/portable/testing/drive.ts';
import { Chromium, findChromium } from './chromium.ts';

const path = findChromium();
let browser: Chromium;
let server: Server;

describe.skipIf(path === undefined)('the portable verifiers in a browser (skipped where there is no Chromium)', () => {
  beforeAll(async () => {
    const module = await bundlePortable();
    server = createServer(({ url }, response) => {
      const isModule = url === '/portable.mjs';
      response.setHeader('content-type', isModule ? 'text/javascript' : 'text/html');
      response.end(isModule ? module : '<!doctype html><title>test</title>');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    browser = await Chromium.start(path ?? '');
  });
  afterAll(async () => {
    await browser.close();
    server.close();
    server.closeAllConnections();
  });

  it('give the verdicts and claims of Node, for genuine and for changed evidence', async () => {
    const named = await allCalls();
    const calls = named.map(({ call }) => call);
    const expected = JSON.parse(await drive(onNode, calls)) as unknown[];
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const { targetId } = await browser.send('Target.createTarget', { url });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    const evaluate = async (expression: string) => {
      const parameters = { expression, awaitPromise: true, returnByValue: true };
      const evaluated = await browser.send('Runtime.evaluate', parameters, String(sessionId));
      return { ...evaluated, value: (evaluated['result'] as { readonly value?: string }).value };
    };
    // A new target is an empty page first, which may not load modules of the server.
    await expect
      .poll(async () => (await evaluate("document.readyState + ' ' + location.href")).value, { timeout: 60_000 })
      .toBe(`complete ${url}`);
    const evaluated = await evaluate(
      `import('${url}portable.mjs').then((module) => (${drive.toString()})(module, ${JSON.stringify(calls)}))`,
    );
    const { value } = evaluated;
    expect(evaluated).not.toHaveProperty('exceptionDetails');
    const results = JSON.parse(value ?? '') as { readonly verdict: Verdict }[];
    for (const [index, { name, code }] of named.entries()) {
      expect({ name, code: results[index]?.verdict.code }).toEqual({ name, code });
      expect({ name, result: results[index] }).toEqual({ name, result: expected[index] });
    }
    process.stdout.write(`${named.length} calls in ${path}\n`);
  });
});
