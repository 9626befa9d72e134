import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { csvVerifier, dcuVerifier } from '../../hygon/index.ts';
import { type CertificateFaults, csvEvidence, dcuReport, newKey, sm3Log, TestHygon } from '../../hygon/testing/mint.ts';
import { flippedBytes, type MutatedTee, type Mutation } from './mutation.ts';

const reportData = Buffer.alloc(48, 7);
const expectations = { reportData, trustedAttestationKeys: [], now: new Date('2026-06-01T00:00:00Z') };

export async function csvMutations(): Promise<MutatedTee> {
  const [hygon, stranger] = [new TestHygon(), new TestHygon()];
  const chain = { hsk: hygon.hsk(), cek: hygon.cek() };
  const pek = hygon.pek();
  const other = newKey('TEST-OTHER');
  const { log, registers } = sm3Log([
    [1, 'kernel'],
    [2, 'initrd'],
  ]);
  const rtmrs = [0, 1, 2, 3, 4].map((index) => registers.get(index) ?? Buffer.alloc(32));
  const fields = { reportData: regularise(reportData, 64), rtmrs };
  const page = hygon.report(2, fields);
  const genuine = csvEvidence(page, pek, { chain, log });
  const certificates = (what: string, faults: Partial<Record<'hsk' | 'cek' | 'pek', CertificateFaults>>): Mutation => ({
    what,
    evidence: csvEvidence(page, hygon.pek(faults.pek), {
      chain: { hsk: hygon.hsk(faults.hsk), cek: hygon.cek(faults.cek) },
      log,
    }),
  });
  const signed = (what: string, change: (page: Buffer) => void): Mutation => ({
    what: `signed report: ${what}`,
    evidence: csvEvidence(hygon.report(2, fields, change), pek, { chain, log }),
  });
  const events = (what: string, list: Parameters<typeof sm3Log>[0]): Mutation => ({
    what,
    evidence: csvEvidence(page, pek, { chain, log: sm3Log(list).log }),
  });
  const report = genuine['attestation_report'] as JsonObject;
  return {
    tee: 'csv',
    verifier: csvVerifier(hygon.rootCertificate(), []),
    expectations,
    genuine,
    mutations: [
      certificates('signing key by another root', { hsk: { by: other } }),
      certificates('signing key of another use', { hsk: { usage: 0x1004 } }),
      certificates('signing key of another issuer', { hsk: { signer: Buffer.alloc(16) } }),
      certificates('chip key by another', { cek: { by: other } }),
      certificates('chip key of another use', { cek: { usage: 0x1002 } }),
      certificates('chip key signed as an owner’s', { cek: { signatureUsage: 0x1001 } }),
      certificates('chip key by another algorithm', { cek: { signatureAlgorithm: 5 } }),
      certificates('platform key by another', { pek: { by: other } }),
      certificates('platform key of another use', { pek: { usage: 0x1003 } }),
      certificates('platform key signed as an owner’s', { pek: { signatureUsage: 0x1001 } }),
      signed('other report data', (bytes) => bytes.writeUInt8(1, 0x40)),
      signed('report data with a tail', (bytes) => bytes.writeUInt8(1, 0x7f)),
      signed('the use of an owner’s key', (bytes) => bytes.writeUInt32LE(0x1001, 0xb4)),
      signed('another algorithm', (bytes) => bytes.writeUInt32LE(5, 0xb8)),
      {
        what: 'measurement changed after signing',
        evidence: csvEvidence(flippedBytes(page, 0x90), pek, { chain, log }),
      },
      { what: 'signature changed', evidence: csvEvidence(flippedBytes(page, 0x400), pek, { chain, log }) },
      { what: 'report of another platform', evidence: csvEvidence(stranger.report(2, fields), pek, { chain, log }) },
      {
        what: 'chain of another root',
        evidence: csvEvidence(stranger.report(2, fields), stranger.pek(), {
          chain: { hsk: stranger.hsk(), cek: stranger.cek() },
          log,
        }),
      },
      { what: 'no certificates of the chip', evidence: csvEvidence(page, pek, { log }) },
      events('event log without an event', [[1, 'kernel']]),
      events('event log with another event', [
        [1, 'kernel'],
        [2, 'another initrd'],
      ]),
      events('event log of a register that there is not', [
        [1, 'kernel'],
        [2, 'initrd'],
        [5, 'more'],
      ]),
      { what: 'event log cut short', evidence: csvEvidence(page, pek, { chain, log: log.subarray(0, 90) }) },
      { what: 'initdata, which nothing binds', evidence: genuine, against: { initDataDigest: Buffer.alloc(32) } },
      { what: 'another session', evidence: genuine, against: { reportData: Buffer.alloc(48, 8) } },
      { what: 'unknown version of the report', evidence: { ...genuine, attestation_report: { ...report, flags: 2 } } },
      { what: 'serial number that is a path', evidence: { ...genuine, serial_number: [...Buffer.from('../../etc')] } },
    ],
  };
}

export async function dcuMutations(): Promise<MutatedTee> {
  const [hygon, stranger] = [new TestHygon(), new TestHygon()];
  const other = newKey('TEST-OTHER');
  const [first, second] = ['DCU0000000000001', 'DCU0000000000002'];
  const field = regularise(reportData, 64);
  const under = (faults: Partial<Record<'hsk' | 'cek', CertificateFaults>> = {}, root = hygon.rootCertificate()) => {
    const chain = Buffer.concat([hygon.hsk(faults.hsk), hygon.cek(faults.cek)]);
    return dcuVerifier(root, [
      { name: 'test', chipChain: async (serial) => (serial === first || serial === second ? chain : undefined) },
    ]);
  };
  const reports = (...list: JsonValue[]): JsonObject => ({ attestation_reports: list });
  const report = (change?: (body: Buffer) => void, serial = first, by = hygon): JsonObject =>
    dcuReport(by, serial, field, change);
  const genuine = reports(report(), report(undefined, second));
  const signed = (what: string, change: (body: Buffer) => void): Mutation => ({
    what: `signed report: ${what}`,
    evidence: reports(report(), report(change, second)),
  });
  const chain = (what: string, faults: Partial<Record<'hsk' | 'cek', CertificateFaults>>): Mutation => ({
    what,
    evidence: genuine,
    by: under(faults),
  });
  const { body, sig } = report() as { readonly body: JsonObject; readonly sig: JsonObject };
  return {
    tee: 'hygondcu',
    verifier: under(),
    expectations,
    genuine,
    mutations: [
      signed('other user data', (bytes) => bytes.writeUInt8(1, 20)),
      signed('user data with a tail', (bytes) => bytes.writeUInt8(1, 83)),
      signed('the use of another key', (bytes) => bytes.writeUInt32LE(0x1002, 244)),
      signed('another algorithm', (bytes) => bytes.writeUInt32LE(9, 248)),
      {
        what: 'measurement changed after signing',
        evidence: reports({ body: { ...body, measure: Array<number>(32).fill(1) }, sig }),
      },
      {
        what: 'signature changed',
        evidence: reports({ body, sig: { ...sig, r: [...Buffer.alloc(72, 1).fill(0, 32)] } }),
      },
      { what: 'report by another chip', evidence: reports(report(undefined, first, stranger)) },
      { what: 'accelerator twice', evidence: reports(report(), report()) },
      { what: 'accelerator whose certificates nobody has', evidence: reports(report(undefined, 'DCU9')) },
      chain('signing key by another root', { hsk: { by: other } }),
      chain('signing key of another use', { hsk: { usage: 0x1004 } }),
      chain('signing key of another issuer', { hsk: { signer: Buffer.alloc(16) } }),
      chain('chip key by another', { cek: { by: other } }),
      chain('chip key of another use', { cek: { usage: 0x1002 } }),
      chain('chip key by another algorithm', { cek: { signatureAlgorithm: 5 } }),
      { what: 'another root', evidence: genuine, by: under({}, stranger.rootCertificate()) },
      { what: 'another session', evidence: genuine, against: { reportData: Buffer.alloc(48, 8) } },
      { what: 'no session', evidence: genuine, against: { reportData: undefined } },
      { what: 'initdata, which nothing binds', evidence: genuine, against: { initDataDigest: Buffer.alloc(32) } },
      { what: 'no report', evidence: reports() },
      { what: 'too many reports', evidence: reports(...Array<JsonObject>(17).fill(report())) },
      { what: 'report without a member', evidence: reports({ body }) },
    ],
  };
}
