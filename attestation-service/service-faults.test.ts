import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseQuote } from '@sealpod/protocol/dcap';
import { snpReportAsJson } from '@sealpod/protocol/snp';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  AttestationRefused,
  type AttestationService,
  type AttestationServiceConfig,
  createAttestationService,
  type EvidenceToEvaluate,
} from './index.ts';
import { mintReport, TestAmd } from './verifiers/snp/testing/mint.ts';

const recorded = join(import.meta.dirname, 'verifiers/dcap/testing/recorded');
const quote = readFileSync(join(recorded, 'tdx-quote.bin'));
const tdx: EvidenceToEvaluate = {
  tee: 'tdx',
  evidence: { quote: quote.toString('base64') },
  runtimeData: { raw: parseQuote(quote).body.report.reportData },
};
const sample = (svn: string): EvidenceToEvaluate => ({ tee: 'sample', evidence: { svn, report_data: '' } });
let folder: string;
let number = 0;
const closing: (() => Promise<void> | void)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'service-faults-'));
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function start(config: AttestationServiceConfig, path = join(folder, `${number++}`, 'db.sqlite')) {
  const storage = await openStorage({ path });
  closing.push(() => storage.close());
  const service = await createAttestationService({ sample: true, ...config }, { storage });
  closing.push(() => service.close());
  return service;
}

/** What became of evidence: a token, or the codes it was refused with. */
async function outcome(service: AttestationService, evidence: EvidenceToEvaluate): Promise<string[]> {
  try {
    await service.evaluate({ evidences: [evidence], policyIds: [], correlationId: 'c' });
    return ['token'];
  } catch (thrown) {
    if (!(thrown instanceof AttestationRefused)) throw thrown;
    return [...new Set(failures(thrown.verdict).map(({ code }) => code))];
  }
}

async function collateralService(behave: (response: ServerResponse) => void) {
  let asked = 0;
  const server = createServer((_request, response) => {
    asked += 1;
    behave(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const end = (): void => {
    server.closeAllConnections();
    server.close();
  };
  closing.push(end);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked: () => asked, end };
}

describe('collateral services that fail a running service', { timeout: 60_000 }, () => {
  let snp: EvidenceToEvaluate;
  beforeAll(async () => {
    const chipId = randomBytes(64);
    const key = await (await TestAmd.create()).chipKey(chipId, { bootloader: 3, tee: 0, snp: 8, microcode: 115 });
    const report = await mintReport(key, { chipId, reportData: Buffer.alloc(64), hostData: Buffer.alloc(32) });
    const evidence = { attestation_report: snpReportAsJson(report), cert_chain: null };
    snp = { tee: 'snp', evidence, runtimeData: { raw: Buffer.alloc(64) } };
  });

  it('silent ones keep no other request waiting; when they are gone, what waited is refused', async () => {
    const silent = await collateralService(() => undefined);
    const { url } = silent;
    const service = await start({
      dcap: { sources: [{ type: 'pccs', url }] },
      snp: { sources: [{ type: 'kds', url }] },
    });
    let answered = 0;
    const waiting = Promise.all([tdx, snp].map((evidence) => outcome(service, evidence).finally(() => answered++)));
    await expect.poll(silent.asked).toBeGreaterThan(2);
    for (let at = 0; at < 20; at++) expect(await outcome(service, sample(`${at}`))).toEqual(['token']);
    expect(answered).toBe(0);
    silent.end();
    expect(await waiting).toEqual([['EV_COLLATERAL_UNAVAILABLE'], ['EV_COLLATERAL_UNAVAILABLE']]);
  });

  it.each<[string, (response: ServerResponse) => void, string]>([
    [
      'overloaded',
      (response) => void response.writeHead(429, { 'retry-after': '0' }).end(),
      'EV_COLLATERAL_UNAVAILABLE',
    ],
    ['breaking off', (response) => response.destroy(), 'EV_COLLATERAL_UNAVAILABLE'],
    ['lying', (response) => void response.writeHead(200).end('{"tcbInfo":{},"signature":"00"}'), 'EV_FORMAT'],
  ])('%s ones make a refusal with its reason', async (_what, behave, code) => {
    const { url } = await collateralService(behave);
    const service = await start({ dcap: { sources: [{ type: 'pccs', url }] } });
    expect(await outcome(service, tdx)).toEqual([code]);
    expect(await outcome(service, sample('1'))).toEqual(['token']);
  });
});

it('a clock that is a day off refuses TDX by the dates of its collateral, and no longer than it is', async () => {
  // Published on 2025-06-19 for thirty days.
  const published = Date.parse('2025-06-19T12:00:00Z');
  const day = 86_400_000;
  let clock = published;
  const path = join(recorded, 'tdx-quote-collateral.json');
  const service = await start({ dcap: { sources: [{ type: 'bundle', path }] }, now: () => new Date(clock) });
  for (const [at, expected] of [
    [published, 'token'],
    [published - day, 'EV_COLLATERAL_EXPIRED'],
    [published + day, 'token'],
    [published + 29 * day, 'token'],
    [published + 30 * day, 'EV_COLLATERAL_EXPIRED'],
    [published + 29 * day, 'token'],
  ] as const) {
    clock = at;
    expect(await outcome(service, tdx), new Date(at).toISOString()).toEqual([expected]);
  }
});

describe('a disk that is full', () => {
  it('refuses what would be written; evidence goes on being appraised, and writes when there is room', async ({
    skip,
  }) => {
    const disk = join(folder, 'disk');
    await mkdir(disk);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk], { stdio: 'pipe' });
    } catch {
      skip('no file system can be mounted here');
    }
    closing.push(() => void execFileSync('umount', [disk]));
    const service = await start({}, join(disk, 'state', 'db.sqlite'));
    const filler = join(disk, 'filler');
    const fill = (): void => {
      const step = Buffer.alloc(4096);
      for (;;) writeFileSync(filler, step, { flag: 'a' });
    };
    expect(fill).toThrow(/ENOSPC/);
    const policy = `package policy\nimport rego.v1\n${`# ${'x'.repeat(60_000)}\n`.repeat(4)}trust_claims := {"hardware": 2}\n`;
    await expect(service.setPolicy('mine_cpu', policy)).rejects.toMatchObject({ code: 'STORAGE' });
    await expect(service.setReferenceValue('svn', [policy])).rejects.toMatchObject({ code: 'STORAGE' });
    await expect(service.tokenKeys?.rotate()).rejects.toMatchObject({ code: 'STORAGE' });
    expect(await service.getPolicy('mine_cpu')).toBeUndefined();
    for (const svn of ['1', '2', '3']) expect(await outcome(service, sample(svn))).toEqual(['token']);
    expect((await service.jwks()).keys).toHaveLength(1);
    rmSync(filler);
    expect(await service.setPolicy('mine_cpu', policy)).toMatchObject({ id: 'mine_cpu' });
    expect(await service.tokenKeys?.rotate()).toMatchObject({ rotated: true });
  });
});
