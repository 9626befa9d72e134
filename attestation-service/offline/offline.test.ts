import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asSealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures, passed } from '@sealpod/protocol/verdict';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  learnableInFile,
  offlineConfiguration,
  readEvidenceFile,
  verifyInFile,
  withCertificates,
  withOfflineService,
} from './index.ts';

const folder = mkdtempSync(join(tmpdir(), 'sealpod-offline-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const code = (work: () => unknown): string => {
  try {
    work();
    return 'OK';
  } catch (thrown) {
    return asSealpodError(thrown).code;
  }
};
const quote = (version: number, teeType: number): Buffer => {
  const bytes = Buffer.alloc(64);
  bytes.writeUInt16LE(version, 0);
  bytes.writeUInt32LE(teeType, 4);
  Buffer.from('939a7233f79c4ca9940a0db3957f0607', 'hex').copy(bytes, 12);
  return bytes;
};

describe('evidence in a file', () => {
  it.each([
    ['snp', json({ attestation_report: {}, cert_chain: null })],
    ['az-snp-vtpm', json({ version: 1, tpm_quote: {}, hcl_report: '', vcek: '' })],
    ['az-snp-vtpm', json({ quote: {}, report: [], vcek: '' })],
    ['az-tdx-vtpm', json({ version: 1, tpm_quote: {}, hcl_report: '', td_quote: '' })],
    ['tpm', json({ ak_public: '', tpm_quote: {} })],
    ['csv', json({ attestation_report: {}, cert_chain: {}, serial_number: [] })],
    ['hygondcu', json({ attestation_reports: [] })],
    ['nvidia', json({ device_evidence_list: [] })],
    ['cca', json({ token: [] })],
    ['sample', json({ svn: '1', report_data: '' })],
    ['tdx', json({ quote: quote(4, 0x81).toString('base64'), cc_eventlog: null })],
    ['sgx', json({ quote: quote(3, 0).toString('base64') })],
    ['tdx', quote(5, 0x81)],
    ['sgx', quote(3, 0)],
    ['cca', Buffer.from('d9018fa0', 'hex')],
    ['aws-nitro', json({ document: '' })],
    ['aws-nitro', Buffer.from('8444a1013822', 'hex')],
    ['aws-nitro', Buffer.from('d28444a1013822', 'hex')],
  ])('of %s is recognised', (tee, bytes) => {
    expect(readEvidenceFile(bytes).tee).toBe(tee);
  });

  it('may have a request around it, as text or as it is, alone or in a list', () => {
    const evidence = { svn: '1', report_data: '' };
    const text = Buffer.from(JSON.stringify(evidence)).toString('base64url');
    const request = { tee: 'sample', evidence: text, runtime_data: { raw: 'AAAA' } };
    for (const content of [request, { ...request, evidence }, { verification_requests: [request], policy_ids: [] }])
      expect(readEvidenceFile(json(content))).toMatchObject({
        tee: 'sample',
        evidence,
        request: { runtime_data: { raw: 'AAAA' } },
      });
  });

  it.each([
    ['JSON that is no evidence', json({ a: 1 }), undefined, 'USAGE'],
    ['bytes that are nothing known', Buffer.from('nothing at all'), undefined, 'USAGE'],
    ['nothing', Buffer.alloc(0), undefined, 'USAGE'],
    ['broken JSON', Buffer.from('{"a":'), undefined, 'EV_FORMAT'],
    ['two members of one name', Buffer.from('{"svn":"1","svn":"2"}'), undefined, 'EV_FORMAT'],
    ['bytes for a TEE that sends JSON', Buffer.from('nothing'), 'tpm', 'EV_FORMAT'],
    ['an SNP report of another length', Buffer.from('nothing'), 'snp', 'EV_FORMAT'],
    ['evidence that is no base64', json({ tee: 'tpm', evidence: '***' }), undefined, 'EV_FORMAT'],
  ])('%s is refused', (_what, bytes, tee, expected) => {
    expect(code(() => readEvidenceFile(bytes, tee))).toBe(expected);
  });

  it('a file that ends within the tag of a token is unrecognised', () => {
    for (const bytes of [[0xd9], [0xd9, 1], [0xd9, 1, 0x8f]])
      expect(code(() => readEvidenceFile(Buffer.from(bytes)))).toBe('USAGE');
  });

  it('whatever it is, the answer is evidence or a typed refusal', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 100 }),
          fc.json().map((text) => Buffer.from(text)),
        ),
        (bytes) => {
          expect(['OK', 'USAGE', 'EV_FORMAT']).toContain(code(() => readEvidenceFile(bytes)));
        },
      ),
    );
  });
});

describe('collateral in a folder', () => {
  it('is found by convention, and verifiers.json comes first', () => {
    expect(offlineConfiguration()).toMatchObject({ snp: { sources: [] }, tpm: { roots: [] } });
    mkdirSync(join(folder, 'tpm'));
    writeFileSync(join(folder, 'tpm', 'lab.simulated.pem'), 'PEM');
    expect(offlineConfiguration(folder)).toMatchObject({
      snp: { sources: [{ type: 'offline', folder }] },
      tpm: { roots: [{ name: 'lab', simulated: true, certificates: 'PEM' }] },
    });
    writeFileSync(join(folder, 'verifiers.json'), '{"snp":{"sources":[],"allowVersion2":true}}');
    expect(offlineConfiguration(folder)).toMatchObject({ snp: { sources: [], allowVersion2: true } });
    writeFileSync(join(folder, 'verifiers.json'), '{');
    expect(code(() => offlineConfiguration(folder))).toBe('USAGE');
    rmSync(join(folder, 'verifiers.json'));
    expect(code(() => offlineConfiguration(join(folder, 'absent')))).toBe('USAGE');
  });
});

describe('verification without a service that runs', () => {
  it('says whether evidence was bound to anything, and what it would teach', async () => {
    await withOfflineService({ sample: true }, async (service) => {
      const file = { tee: 'sample', evidence: { svn: '1', report_data: Buffer.alloc(48, 1).toString('base64') } };
      const bound = await verifyInFile(service, file, { reportData: Buffer.alloc(48, 1) });
      expect(bound).toMatchObject({ bound: true, submodules: [{ teeClass: 'cpu', claims: { svn: '1' } }] });
      expect(learnableInFile(bound)).toMatchObject({ svn: ['1'], launch_digest: ['abcde'] });
      const other = await verifyInFile(service, file, { reportData: Buffer.alloc(48, 2) });
      expect(failures(other.verdict).map((verdict) => verdict.code)).toEqual(['EV_BINDING_MISMATCH']);
      expect(other.submodules).toEqual([]);
    });
  });

  it('does not verify a TEE that is not enabled, sample evidence for one', async () => {
    await withOfflineService(offlineConfiguration(), async (service) => {
      const { verdict } = await verifyInFile(service, { tee: 'sample', evidence: {} });
      expect(verdict.code).toBe('EV_TEE_UNSUPPORTED');
    });
  });
});

const vectors = vectorPath('snp');
describe.skipIf(!existsSync(vectors))('published evidence (skipped where the vectors are absent)', () => {
  it('an SNP report verifies with the certificate that lies in the folder, and by none', async () => {
    const certificates = join(folder, 'certificates');
    mkdirSync(certificates);
    writeFileSync(join(certificates, 'vcek.der'), readFileSync(vectorPath('snp/test-vcek.der')));
    writeFileSync(join(certificates, 'verifiers.json'), '{"snp":{"sources":[],"allowVersion2":true}}');
    const file = readEvidenceFile(readFileSync(vectorPath('snp/test-report.bin')));
    const verify = (collateral: string | undefined) =>
      withOfflineService(
        { ...offlineConfiguration(collateral), now: () => new Date('2025-06-01T00:00:00Z') },
        (service) => verifyInFile(service, withCertificates(file, collateral)),
      );
    expect(failures((await verify(certificates)).verdict)).toEqual([]);
    expect(passed((await verify(undefined)).verdict)).toBe(false);
  });

  it('Azure evidence gives the golden claims', async () => {
    const golden = JSON.parse(readFileSync(vectorPath('expected-claims.json'), 'utf8')) as Record<
      string,
      { claims: JsonObject }
    >;
    const file = readEvidenceFile(readFileSync(vectorPath('az-snp-vtpm/evidence-v1.json')));
    const config = { ...offlineConfiguration(), now: () => new Date('2025-06-01T00:00:00Z') };
    const { bound, submodules } = await withOfflineService(config, (service) => verifyInFile(service, file));
    expect(bound).toBe(false);
    expect(submodules[0]?.claims).toMatchObject(golden['az-snp-vtpm/evidence-v1.json']?.claims ?? { missing: true });
  });
});
