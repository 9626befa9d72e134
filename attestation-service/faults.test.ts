import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { snpReportAsJson } from '@sealpod/protocol/snp';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { cachedSource } from './endorsements/amd/cached-source.ts';
import { keyDistributionService } from './endorsements/amd/key-distribution-service.ts';
import type { AmdEndorsementSource } from './endorsements/amd/source.ts';
import {
  type AttestationService,
  type AttestationServiceConfig,
  createAttestationService,
  type EvidenceToEvaluate,
} from './index.ts';
import { snpVerifier } from './verifiers/snp/index.ts';
import { mintReport, TestAmd } from './verifiers/snp/testing/mint.ts';

const day = 86_400_000;
let folder: string;
let number = 0;
let storage: Storage;
const closing: (() => Promise<void> | void)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'faults-'));
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function open(options: { readonly maximumBytes?: number } = {}): Promise<Storage> {
  number += 1;
  storage = await openStorage({ path: join(folder, `${number}`, 'db.sqlite'), ...options });
  closing.push(() => storage.close());
  return storage;
}

async function start(config: AttestationServiceConfig = {}, options: { readonly maximumBytes?: number } = {}) {
  const service = await createAttestationService({ sample: true, ...config }, { storage: await open(options) });
  closing.push(() => service.close());
  return service;
}

const sample = (svn = '1'): EvidenceToEvaluate => ({ tee: 'sample', evidence: { svn, report_data: '' } });
const evaluate = (service: AttestationService, policy?: string, evidence = sample()) =>
  service.evaluate({ evidences: [evidence], policyIds: policy === undefined ? [] : [policy], correlationId: 'c' });

describe('hostile policies', () => {
  const hostile = {
    'an endless loop': 'x := count([1 | some i in numbers.range(1, 30000); some j in numbers.range(1, 30000); i == j])',
    'memory without end': 'x := [r | some i in numbers.range(1, 100000); r := numbers.range(1, i)]',
  };

  it.each(Object.entries(hostile))(
    '%s ends in a refusal within its limit, while other requests go on',
    async (_what, rule) => {
      const timeoutMs = 1000;
      const service = await start({ rego: { timeoutMs, workers: 2 } });
      // No evidence that was seen before sets it off: what is checked at upload does not find it.
      const policy = `package policy\nimport rego.v1\n${rule}\ntrust_claims := {"hardware": 2} if { input.sample.svn == "6"; x }\n`;
      await service.setPolicy('hostile_cpu', policy);
      await evaluate(service);
      const began = performance.now();
      const attack = evaluate(service, 'hostile', sample('6')).then(
        () => 'answered',
        (error: { code?: string }) => error.code,
      );
      const times: number[] = [];
      for (let at = 0; at < 20; at++) {
        const asked = performance.now();
        // Each with claims of its own, so that its policy is evaluated, too.
        await evaluate(service, undefined, sample(`other ${at}`));
        times.push(performance.now() - asked);
      }
      expect(await attack).toBe('POLICY_TIMEOUT');
      expect(performance.now() - began).toBeLessThan(5 * timeoutMs);
      expect(times.toSorted((a, b) => a - b)[10]).toBeLessThan(timeoutMs / 2);
      expect((await evaluate(service)).claims.submods['cpu0']?.['ear.status']).toBe('contraindicated');
    },
    20_000,
  );

  it('many at once take no more than their limits, and the service goes on', async () => {
    const service = await start({ rego: { timeoutMs: 300, workers: 2 } });
    const rule = hostile['an endless loop'];
    await service.setPolicy(
      'hostile_cpu',
      `package policy\nimport rego.v1\n${rule}\ntrust_claims := {"hardware": 2} if { startswith(input.sample.svn, "6"); x }\n`,
    );
    const attacks = await Promise.allSettled(
      Array.from({ length: 6 }, (_, at) => evaluate(service, 'hostile', sample(`6${at}`))),
    );
    expect(attacks.map((attack) => attack.status === 'rejected' && attack.reason.code)).toEqual(
      Array(6).fill('POLICY_TIMEOUT'),
    );
    expect((await evaluate(service, undefined, sample('new'))).token).toBeTypeOf('string');
  }, 20_000);
});

describe('a full storage', () => {
  it('refuses what would be written, keeps what is there, and evidence goes on being appraised', async () => {
    const service = await start({}, { maximumBytes: 512 * 1024 });
    const big = `package policy\nimport rego.v1\n${`# ${'x'.repeat(60_000)}\n`.repeat(12)}trust_claims := {"hardware": 2}\n`;
    await expect(service.setPolicy('big_cpu', big)).rejects.toMatchObject({ code: 'STORAGE' });
    expect(await service.getPolicy('big_cpu')).toBeUndefined();
    expect(await service.getPolicy('default_cpu')).toBeDefined();
    const fill = async (): Promise<void> => {
      for (;;) await storage.put('filler', randomBytes(8).toString('hex'), randomBytes(4096));
    };
    await expect(fill()).rejects.toMatchObject({ code: 'STORAGE' });
    for (const svn of ['1', '2', '3'])
      expect((await evaluate(service, undefined, sample(svn))).token).toBeTypeOf('string');
    const larger = `${(await service.getPolicy('default_cpu'))?.policy}# ${'x'.repeat(60_000)}\n`;
    await expect(service.setPolicy('default_cpu', larger)).rejects.toMatchObject({ code: 'STORAGE' });
    expect((await evaluate(service, undefined, sample('4'))).token).toBeTypeOf('string');
  });
});

describe('SNP with a clock or collateral that is wrong', () => {
  const chipId = randomBytes(64);
  const tcb = { bootloader: 3, tee: 0, snp: 8, microcode: 115 };
  const reportData = randomBytes(48);
  const ends = new Date('2026-06-10T00:00:00Z');
  const now = new Date('2026-06-01T00:00:00Z');
  let amd: TestAmd;
  let vcek: Awaited<ReturnType<TestAmd['chipKey']>>;
  let root: TestAmd['root'];
  let report: Buffer;
  const evidence = (chain: readonly { cert_type: string; data: number[] }[] | null): JsonObject => ({
    attestation_report: snpReportAsJson(report),
    cert_chain: chain,
  });

  beforeAll(async () => {
    amd = await TestAmd.create();
    root = amd.root;
    vcek = await amd.chipKey(chipId, tcb, { notAfter: ends });
    report = await mintReport(vcek, { chipId, reportData: regularise(reportData, 64), hostData: Buffer.alloc(32) });
  });

  function verifier(sources: readonly AmdEndorsementSource[] = [], requireRevocationList = false) {
    const under = snpVerifier({ allowVersion2: false, requireRevocationList, root: () => root }, sources);
    return async (at: Date, chain: Parameters<typeof evidence>[0] = null): Promise<string[]> => {
      const against = { reportData, trustedAttestationKeys: [], now: at };
      const { verdict } = await under.verify(evidence(chain), against);
      return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
    };
  }

  /** A key distribution service that does what `behave` says. */
  async function service(behave: (path: string, response: ServerResponse) => void): Promise<AmdEndorsementSource> {
    const server: Server = createServer((request, response) => behave(request.url ?? '', response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closing.push(() => {
      server.closeAllConnections();
      server.close();
    });
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return keyDistributionService(url, {
      retries: 1,
      pauseMs: 1,
      longestPauseMs: 5,
      timeoutMs: 200,
      maxBytes: 64 * 1024,
    });
  }

  it('a clock of a day before or after refuses by its dates, also after the same chain was found valid', async () => {
    const sent = [{ cert_type: 'VCEK', data: [...vcek.der] }];
    const verify = verifier();
    const expired = ['certificate chain: EV_CERT_CHAIN'];
    expect(await verify(now, sent)).toEqual([]);
    expect(await verify(now, sent)).toEqual([]);
    expect(await verify(new Date(ends.getTime() - day), sent)).toEqual([]);
    expect(await verify(new Date(ends.getTime() + day), sent)).toEqual(expired);
    expect(await verify(new Date('2023-12-31T00:00:00Z'), sent)).toEqual(expired);
    expect(await verify(now, sent)).toEqual([]);
  });

  it('away, slow, overloaded or lying, the service refuses the evidence with a reason; once well, it is asked again', async () => {
    let behave: (path: string, response: ServerResponse) => void = (_path, response) => response.destroy();
    const source = await service((path, response) => behave(path, response));
    const verify = verifier([cachedSource(source, await open(), () => now)]);
    const unavailable = ['certificate of the signing key: EV_COLLATERAL_UNAVAILABLE'];
    expect(await verify(now)).toEqual(unavailable);
    behave = () => undefined;
    expect(await verify(now)).toEqual(unavailable);
    behave = (_path, response) => void response.writeHead(429, { 'retry-after': '0' }).end();
    expect(await verify(now)).toEqual(unavailable);
    behave = (_path, response) => void response.writeHead(404).end();
    expect(await verify(now)).toEqual(unavailable);
    behave = (path, response) => void (path.endsWith('crl') ? response.writeHead(404).end() : response.end(vcek.der));
    expect(await verify(now)).toEqual([]);
    behave = (_path, response) => response.destroy();
    expect(await verify(now)).toEqual([]);
  });

  it('the certificate of another chip, or of another authority, is refused for what it is', async () => {
    const other = await amd.chipKey(randomBytes(64), tcb);
    const foreign = await (await TestAmd.create()).chipKey(chipId, tcb);
    const lying = async (der: Buffer): Promise<string[]> =>
      verifier([
        await service(
          (path, response) => void (path.endsWith('crl') ? response.writeHead(404).end() : response.end(der)),
        ),
      ])(now);
    expect(await lying(other.der)).toEqual(['report signature: EV_SIGNATURE', 'chip id: EV_PART_MIX']);
    expect(await lying(foreign.der)).toEqual(['certificate chain: EV_CERT_CHAIN', 'report signature: EV_SIGNATURE']);
  });

  it('a revocation list that is away, expired or not yet current refuses where one is required', async () => {
    const sent = [{ cert_type: 'VCEK', data: [...vcek.der] }];
    const list = await amd.revocationList([], new Date(now.getTime() + day / 2));
    const serving = await service(
      (path, response) => void (path.endsWith('crl') ? response.end(list) : response.writeHead(404).end()),
    );
    const verify = verifier([serving], true);
    const expired = ['revocation list: EV_COLLATERAL_EXPIRED'];
    expect(await verify(now, sent)).toEqual([]);
    expect(await verify(new Date(now.getTime() + day), sent)).toEqual(expired);
    expect(await verify(now, sent)).toEqual([]);
    const away = await service((_path, response) => response.destroy());
    expect(await verifier([away], true)(now, sent)).toEqual(['revocation list: EV_COLLATERAL_UNAVAILABLE']);
  });
});
