import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { parseSnpEvidence, parseSnpReport, snpReportAsJson } from '@sealpod/protocol/snp';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures, type Verdict } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { AmdEndorsementSource } from '../../endorsements/amd/source.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import type { Verification, Verifier } from '../verifier.ts';
import { snpVerifier } from './index.ts';
import { amdRoot } from './root.ts';
import { mintReport, reportFields, TestAmd } from './testing/mint.ts';
import type { SnpRules } from './verify.ts';

const chipId = randomBytes(64);
const tcb = { bootloader: 3, tee: 0, snp: 8, microcode: 115 };
const reportData = randomBytes(48);
const initDataDigest = randomBytes(32);
const fields = { chipId, reportData: regularise(reportData, 64), hostData: initDataDigest };
const now = new Date('2026-06-01T00:00:00Z');
const expectations = { reportData, initDataDigest, trustedAttestationKeys: [], now };

let amd: TestAmd;
let vcek: Awaited<ReturnType<TestAmd['chipKey']>>;
let verifier: Verifier;

beforeAll(async () => {
  amd = await TestAmd.create();
  vcek = await amd.chipKey(chipId, tcb);
  verifier = under({});
});

/** The verifier under the test's own root. */
function under(rules: Partial<SnpRules>, sources: readonly AmdEndorsementSource[] = []): Verifier {
  return snpVerifier({ allowVersion2: false, requireRevocationList: false, root: () => amd.root, ...rules }, sources);
}

function evidence(report: Buffer, chain: Readonly<Record<string, Buffer>> | null = { VCEK: vcek.der }): JsonObject {
  const entries = chain && Object.entries(chain).map(([type, der]) => ({ cert_type: type, data: [...der] }));
  return { attestation_report: snpReportAsJson(report), cert_chain: entries };
}

async function verified(
  value: JsonValue,
  against: Partial<typeof expectations> = {},
  by = verifier,
): Promise<Verification> {
  return by.verify(value, { ...expectations, ...against });
}

/** Codes of the checks that failed, and the code of an exception where there is one. */
async function refusals(
  value: JsonValue,
  against: Partial<typeof expectations> = {},
  by = verifier,
): Promise<string[]> {
  try {
    return named((await verified(value, against, by)).verdict);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown: ${thrown.code}`];
    throw thrown;
  }
}

const named = (verdict: Verdict): string[] => failures(verdict).map(({ check, code }) => `${check}: ${code}`);

describe('evidence of SEV-SNP', () => {
  it('is accepted from a genuine machine, and its claims are upstream’s', async () => {
    const { verdict, claims } = await verified(evidence(await mintReport(vcek, fields)));
    expect(named(verdict)).toEqual([]);
    const { sealpod, ...upstream } = claims;
    expect(upstream).toEqual({
      policy_abi_major: 0,
      policy_abi_minor: 31,
      policy_smt_allowed: true,
      policy_migrate_ma: false,
      policy_debug_allowed: false,
      policy_single_socket: false,
      reported_tcb_bootloader: 3,
      reported_tcb_tee: 0,
      reported_tcb_snp: 8,
      reported_tcb_microcode: 115,
      platform_tsme_enabled: false,
      platform_smt_enabled: true,
      measurement: 'aa'.repeat(48),
      chip_id: chipId.toString('hex'),
      report_data: fields.reportData.toString('hex'),
      init_data: initDataDigest.toString('hex'),
    });
    expect(sealpod).toMatchObject({ report_version: 3, generation: 'Milan', signing_key: 'VCEK', vmpl: 0 });
  });

  it('is accepted of versions 4 and 5, of a provider’s key, and of Turin with its fmc', async () => {
    const version = (value: number) => (report: Buffer) => report.writeUInt32LE(value, 0);
    expect(await refusals(evidence(await mintReport(vcek, fields, version(4))))).toEqual([]);
    const five = await mintReport(vcek, fields, (report) => {
      version(5)(report);
      report.writeBigUInt64LE(5n, 0x1f8);
      report.writeBigUInt64LE(7n, 0x200);
    });
    expect(await refusals(evidence(five))).toEqual([]);

    const vlek = await amd.providerKey(tcb);
    const provided = await mintReport(vlek, { ...fields, chipId: Buffer.alloc(64) }, (report) =>
      report.writeUInt32LE(4, reportFields.keyInfo),
    );
    expect(await refusals(evidence(provided, { VLEK: vlek.der }))).toEqual([]);

    const turin = await TestAmd.create('Turin');
    const shortChip = regularise(chipId.subarray(0, 8), 64);
    const turinTcb = { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 200 };
    for (const certified of [shortChip.subarray(0, 8), shortChip]) {
      const key = await turin.chipKey(certified, turinTcb);
      const report = await mintReport(key, { ...fields, chipId: shortChip }, (bytes) => {
        Buffer.from([0x1a, 2, 1]).copy(bytes, reportFields.processor);
        Buffer.from([1, 2, 3, 4, 0, 0, 0, 200]).copy(bytes, reportFields.reportedTcb);
      });
      const by = under({ root: () => turin.root });
      expect(await refusals(evidence(report, { VCEK: key.der }), {}, by)).toEqual([]);
    }
  });

  it('of version 2 needs the switch', async () => {
    const report = await mintReport(vcek, fields, (bytes) => {
      bytes.writeUInt32LE(2, 0);
      bytes.fill(0, reportFields.processor, reportFields.processor + 3);
    });
    expect(await refusals(evidence(report))).toEqual(['report version: EV_FORMAT']);
    expect(await refusals(evidence(report), {}, under({ allowVersion2: true }))).toEqual([]);
  });

  it.each<[string, (report: Buffer) => void, string[]]>([
    ['version 1', (report) => report.writeUInt32LE(1, 0), ['report version: EV_FORMAT']],
    ['version 6', (report) => report.writeUInt32LE(6, 0), ['report version: EV_FORMAT']],
    [
      'an unknown processor',
      (report) => Buffer.from([0x19, 0x40, 0]).copy(report, reportFields.processor),
      ['processor: EV_TEE_UNSUPPORTED'],
    ],
    [
      'policy without bit 17',
      (report) => report.writeBigUInt64LE(0x1001fn, reportFields.policy),
      ['guest policy: EV_FORMAT'],
    ],
    ['privilege level 1', (report) => report.writeUInt32LE(1, reportFields.vmpl), ['privilege level: EV_VMPL']],
    [
      'another signature algorithm',
      (report) => report.writeUInt32LE(2, reportFields.signatureAlgorithm),
      ['report signature: EV_SIGNATURE'],
    ],
    [
      'signed by a VLEK, it says',
      (report) => report.writeUInt32LE(4, reportFields.keyInfo),
      ['signing key: EV_PART_MIX'],
    ],
    ['signed by nobody', (report) => report.writeUInt32LE(28, reportFields.keyInfo), ['signing key: EV_PART_MIX']],
    ['another bootloader', (report) => report.writeUInt8(4, reportFields.reportedTcb), ['reported TCB: EV_PART_MIX']],
    [
      'another TEE version',
      (report) => report.writeUInt8(1, reportFields.reportedTcb + 1),
      ['reported TCB: EV_PART_MIX'],
    ],
    [
      'another SNP version',
      (report) => report.writeUInt8(9, reportFields.reportedTcb + 6),
      ['reported TCB: EV_PART_MIX'],
    ],
    [
      'another microcode',
      (report) => report.writeUInt8(116, reportFields.reportedTcb + 7),
      ['reported TCB: EV_PART_MIX'],
    ],
    [
      'another chip',
      (report) => report.writeUInt8((chipId[0] ?? 0) ^ 1, reportFields.chipId),
      ['chip id: EV_PART_MIX'],
    ],
    [
      'a masked chip',
      (report) => report.fill(0, reportFields.chipId, reportFields.chipId + 64),
      ['chip id: EV_PART_MIX'],
    ],
    [
      'other report data',
      (report) => report.writeUInt8((reportData[0] ?? 0) ^ 1, reportFields.reportData),
      ['report data: EV_BINDING_MISMATCH'],
    ],
    [
      'report data with a tail',
      (report) => report.writeUInt8(1, reportFields.reportData + 63),
      ['report data: EV_BINDING_MISMATCH'],
    ],
    [
      'other initdata',
      (report) => report.writeUInt8((initDataDigest[0] ?? 0) ^ 1, reportFields.hostData),
      ['host data: INITDATA_DIGEST'],
    ],
  ])('that is signed but has %s is refused', async (_, change, expected) => {
    const refused = await refusals(evidence(await mintReport(vcek, fields, change)));
    expect(refused).toEqual(expect.arrayContaining(expected));
  });

  it('is refused with any signed byte changed', { timeout: 300_000 }, async () => {
    const genuine = await mintReport(vcek, fields);
    // Bytes that upstream’s form does not carry: between the parts of a TCB, and reserved ones.
    const carried = (at: number): boolean => {
      const json = (report: Buffer) => JSON.stringify(snpReportAsJson(report));
      return json(changed(at)) !== json(genuine);
    };
    const changed = (at: number): Buffer => {
      const report = Buffer.from(genuine);
      report[at] = (report[at] ?? 0) ^ 1;
      return report;
    };
    let tried = 0;
    for (let at = 0; at < 0x2a0; at += 1) {
      if (!carried(at)) continue;
      tried += 1;
      expect(await refusals(evidence(changed(at))), `byte ${at}`).not.toEqual([]);
    }
    expect(tried).toBeGreaterThan(400);
    for (const at of [0x2a0, 0x2cf, 0x2e8, 0x2ff, 0x2d0, 0x32f])
      expect(await refusals(evidence(changed(at)))).not.toEqual([]);
  });

  it('findings 1 and 2: is refused with a certificate of another TCB, chip, kind, issuer or time, and without one', async () => {
    const report = await mintReport(vcek, fields);
    const with_ = async (key: { readonly der: Buffer }, type = 'VCEK') =>
      refusals(evidence(report, { [type]: key.der }));
    const other = await TestAmd.create();
    expect(await with_(await amd.chipKey(chipId, { ...tcb, snp: 7 }))).toContain('reported TCB: EV_PART_MIX');
    expect(await with_(await amd.chipKey(randomBytes(64), tcb))).toContain('chip id: EV_PART_MIX');
    expect(await with_(await amd.providerKey(tcb), 'VLEK')).toContain('signing key: EV_PART_MIX');
    expect(await with_(await other.chipKey(chipId, tcb))).toContain('certificate chain: EV_CERT_CHAIN');
    expect(await with_(await amd.chipKey(chipId, tcb, {}, amd.asvk))).toContain('certificate chain: EV_CERT_CHAIN');
    expect(await with_(amd.ask)).toEqual(['thrown: EV_FORMAT']);
    const expired = await amd.chipKey(chipId, tcb, { notAfter: new Date('2025-01-01T00:00:00Z') });
    const old = evidence(await mintReport(expired, fields), { VCEK: expired.der });
    expect(await refusals(old)).toEqual(['certificate chain: EV_CERT_CHAIN']);
    expect(await refusals(old, { now: new Date('2024-06-01T00:00:00Z') })).toEqual([]);
    expect(await refusals(evidence(report, null))).toEqual([
      'certificate of the signing key: EV_COLLATERAL_UNAVAILABLE',
    ]);
  });

  it('is refused with authorities that are not the root’s', async () => {
    const report = await mintReport(vcek, fields);
    const genuine = { VCEK: vcek.der, ASK: amd.ask.der, ARK: amd.ark.der };
    expect(await refusals(evidence(report, genuine))).toEqual([]);
    const other = await TestAmd.create();
    for (const forged of [{ ARK: other.ark.der }, { ASK: other.ask.der }])
      expect(await refusals(evidence(report, { ...genuine, ...forged }))).toEqual([
        'authorities in the evidence: EV_CERT_CHAIN',
      ]);
  });

  it('finding 2: holds revocation lists against the chain', async () => {
    const report = evidence(await mintReport(vcek, fields));
    const from = (list: Buffer | undefined): AmdEndorsementSource => ({
      name: 'test',
      chipKey: () => Promise.resolve(undefined),
      revocationList: () => Promise.resolve(list),
    });
    const by = (list: Buffer | undefined, required: boolean) =>
      under({ requireRevocationList: required }, [from(list)]);
    const good = await amd.revocationList([amd.asvk]);
    const revoking = await amd.revocationList([amd.ask]);
    const stale = await amd.revocationList([], new Date('2025-01-01T00:00:00Z'));
    const forged = await amd.revocationList([], undefined, amd.ask);
    expect(await refusals(report, {}, by(good, true))).toEqual([]);
    expect(await refusals(report, {}, by(revoking, false))).toEqual(['revocation: EV_CERT_REVOKED']);
    expect(await refusals(report, {}, by(stale, false))).toEqual([]);
    expect(await refusals(report, {}, by(stale, true))).toEqual(['revocation list: EV_COLLATERAL_EXPIRED']);
    expect(await refusals(report, {}, by(undefined, true))).toEqual(['revocation list: EV_COLLATERAL_UNAVAILABLE']);
    expect(await refusals(report, {}, by(forged, true))).toEqual(['revocation list: EV_SIGNATURE']);
    expect(await refusals(report, {}, by(Buffer.from('no list'), true))).toEqual(['revocation list: EV_FORMAT']);
  });

  it('G-19: an older revocation list is refused once a newer one was seen, though its signature and dates hold', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'snp-seen-'));
    const storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
    try {
      const report = evidence(await mintReport(vcek, fields));
      // Each time as after a restart: the memory is the storage's.
      const refusedFor = (list: Buffer, requireRevocationList = false) => {
        const source = { name: 'test', chipKey: async () => undefined, revocationList: async () => list };
        return refusals(report, {}, under({ requireRevocationList, seen: new SeenBefore(storage, 'amd') }, [source]));
      };
      const of = (thisUpdate: string, revoked: Parameters<TestAmd['revocationList']>[0] = []) =>
        amd.revocationList(revoked, undefined, undefined, new Date(thisUpdate));
      const [older, newer, future] = await Promise.all([
        of('2025-03-01T00:00:00Z'),
        of('2025-04-01T00:00:00Z', [amd.ask]),
        of('2030-01-01T00:00:00Z'),
      ]);
      expect(await refusedFor(future)).toEqual([]);
      expect(await refusedFor(older, true)).toEqual([]);
      expect(await refusedFor(newer)).toEqual(['revocation: EV_CERT_REVOKED']);
      // Also where no list at all would do: what it hides is known to exist.
      expect(await refusedFor(older)).toEqual(['revocation list: EV_COLLATERAL_ROLLBACK']);
      expect(await refusedFor(older, true)).toEqual(['revocation list: EV_COLLATERAL_ROLLBACK']);
    } finally {
      await storage.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('asks its sources in order for a certificate that did not come along', async () => {
    const asked: string[] = [];
    const source = (name: string, answer: () => Promise<Buffer | undefined>): AmdEndorsementSource => ({
      name,
      chipKey: (request) => {
        asked.push(`${name} ${request.generation} ${request.chipId.equals(chipId)} ${JSON.stringify(request.tcb)}`);
        return answer();
      },
      revocationList: () => Promise.resolve(undefined),
    });
    const away = source('away', () => Promise.reject(new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'away')));
    const empty = source('empty', () => Promise.resolve(undefined));
    const full = source('full', () => Promise.resolve(vcek.der));
    const report = evidence(await mintReport(vcek, fields), null);
    expect(await refusals(report, {}, under({}, [away, empty, full]))).toEqual([]);
    expect(asked).toEqual(['away', 'empty', 'full'].map((name) => `${name} Milan true ${JSON.stringify(tcb)}`));
    expect(await refusals(report, {}, under({}, [empty, away]))).toEqual([
      'certificate of the signing key: EV_COLLATERAL_UNAVAILABLE',
    ]);
  });

  it('that is malformed is refused by name, whatever it is', async () => {
    const genuine = evidence(await mintReport(vcek, fields));
    const report = genuine['attestation_report'] as JsonObject;
    for (const member of Object.keys(report).filter((name) => !name.startsWith('cpuid_'))) {
      for (const value of [null, 'text', -1, [256], { r: [] }])
        expect(
          await refusals({ ...genuine, attestation_report: { ...report, [member]: value } }),
          `${member} ${JSON.stringify(value)}`,
        ).toEqual(['thrown: EV_FORMAT']);
    }
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (value) => {
        expect(await refusals(value as JsonValue)).not.toEqual([]);
        expect(await refusals({ ...genuine, cert_chain: value } as JsonValue)).toHaveLength(1);
      }),
      { numRuns: 200 },
    );
  });

  it('any bytes of the right length are read as some report', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1184, maxLength: 1184 }), (bytes) => {
        bytes.fill(0, 0x2a0);
        const report = parseSnpReport(bytes);
        const again = parseSnpEvidence({
          attestation_report: snpReportAsJson(withoutGaps(Buffer.from(bytes))),
          cert_chain: null,
        });
        expect(parseSnpReport(again.report).measurement).toEqual(report.measurement);
      }),
      { numRuns: 50 },
    );
  });
});

/** 64-bit members beyond 2^53 have no exact JSON number, and no real report has such. */
function withoutGaps(report: Buffer): Buffer {
  for (const at of [0x08, 0x40, 0x1f8, 0x200]) report.fill(0, at + 4, at + 8);
  return report;
}

const vectors = vectorPath('snp');
describe.skipIf(!existsSync(vectors))('published SNP evidence (skipped where the vectors are absent)', () => {
  const read = (name: string): Buffer => readFileSync(vectorPath(`snp/${name}`));
  const real = snpVerifier({ allowVersion2: true, requireRevocationList: false, root: amdRoot }, []);
  const at = { trustedAttestationKeys: [], now: new Date('2025-06-01T00:00:00Z') };
  const refused = async (report: Buffer, type: string, der: Buffer): Promise<string[]> =>
    named((await real.verify(evidence(report, { [type]: der }), at)).verdict);

  it('a VCEK’s report verifies under AMD’s root; with forged certificates it does not (chip id and TCB are compared)', async () => {
    expect(await refused(read('test-report.bin'), 'VCEK', read('test-vcek.der'))).toEqual([]);
    for (const name of ['test-vcek-invalid-legacy.der', 'test-vcek-invalid-new.der'])
      expect(await refused(read('test-report.bin'), 'VCEK', read(name))).toEqual([
        'certificate chain: EV_CERT_CHAIN',
        'report signature: EV_SIGNATURE',
        'chip id: EV_PART_MIX',
        'reported TCB: EV_PART_MIX',
      ]);
  });

  it('a VLEK’s report verifies but for its privilege level', async () => {
    expect(await refused(read('test-vlek-report.bin'), 'VLEK', read('test-vlek.der'))).toEqual([
      'privilege level: EV_VMPL',
    ]);
  });
});
