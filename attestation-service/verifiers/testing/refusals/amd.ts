import type { JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { snpReportAsJson } from '@sealpod/protocol/snp';
import { azureSnpVerifier } from '../../azure/snp.ts';
import { azureInitdata, azureSnpEvidence, bootedTpm } from '../../azure/testing/mint.ts';
import { mintReport, reportFields, TestAmd } from '../../snp/testing/mint.ts';
import { snpVerifier } from '../../snp/verifier.ts';
import { flipped, flippedBytes, type MutatedTee, type Mutation } from './mutation.ts';

const tcb = { bootloader: 3, tee: 0, snp: 8, microcode: 115 };
const chipId = Buffer.alloc(64, 0xc1);
const hostData = Buffer.alloc(32, 0x1d);
const reportData = Buffer.alloc(48, 7);
const now = new Date('2026-06-01T00:00:00Z');

const inReport: readonly (readonly [string, (report: Buffer) => void])[] = [
  ['version 2 without the switch', (report) => report.writeUInt32LE(2, reportFields.version)],
  ['a version that nobody knows', (report) => report.writeUInt32LE(6, reportFields.version)],
  ['a processor that nobody knows', (report) => report.writeUInt8(0x40, reportFields.processor + 1)],
  ['a policy without its reserved bit', (report) => report.writeBigUInt64LE(0x1001fn, reportFields.policy)],
  ['asked for at privilege level 1', (report) => report.writeUInt32LE(1, reportFields.vmpl)],
  ['another signature algorithm', (report) => report.writeUInt32LE(2, reportFields.signatureAlgorithm)],
  ['signed by a VLEK, it says', (report) => report.writeUInt32LE(4, reportFields.keyInfo)],
  ['signed by nobody, it says', (report) => report.writeUInt32LE(28, reportFields.keyInfo)],
  ['another version of the bootloader', (report) => report.writeUInt8(4, reportFields.reportedTcb)],
  ['another version of the TEE', (report) => report.writeUInt8(1, reportFields.reportedTcb + 1)],
  ['another version of SNP', (report) => report.writeUInt8(9, reportFields.reportedTcb + 6)],
  ['another microcode', (report) => report.writeUInt8(116, reportFields.reportedTcb + 7)],
  ['another chip', (report) => report.writeUInt8(1, reportFields.chipId)],
  ['a masked chip', (report) => report.fill(0, reportFields.chipId, reportFields.chipId + 64)],
];

export async function snpMutations(): Promise<MutatedTee> {
  const [amd, other] = await Promise.all([TestAmd.create(), TestAmd.create()]);
  const vcek = await amd.chipKey(chipId, tcb);
  const fields = { chipId, reportData: regularise(reportData, 64), hostData };
  const evidence = (report: Buffer, key: { readonly der: Buffer } = vcek, type = 'VCEK'): JsonObject => ({
    attestation_report: snpReportAsJson(report),
    cert_chain: [{ cert_type: type, data: [...key.der] }],
  });
  const genuine = await mintReport(vcek, fields);
  const signed = async (what: string, change: (report: Buffer) => void): Promise<Mutation> => ({
    what: `signed report: ${what}`,
    evidence: evidence(await mintReport(vcek, fields, change)),
  });
  const under = (sources: Parameters<typeof snpVerifier>[1]) =>
    snpVerifier({ allowVersion2: false, requireRevocationList: true, root: () => amd.root }, sources);
  const from = (list: Buffer) => [{ name: 'test', chipKey: async () => undefined, revocationList: async () => list }];
  return {
    tee: 'snp',
    verifier: snpVerifier({ allowVersion2: false, requireRevocationList: false, root: () => amd.root }, []),
    expectations: { reportData, initDataDigest: hostData, trustedAttestationKeys: [], now },
    genuine: evidence(genuine),
    mutations: [
      ...(await Promise.all(inReport.map(([what, change]) => signed(what, change)))),
      await signed('other report data', (report) => report.writeUInt8(1, reportFields.reportData)),
      await signed('report data with a tail', (report) => report.writeUInt8(1, reportFields.reportData + 63)),
      await signed('other host data', (report) => report.writeUInt8(1, reportFields.hostData)),
      {
        what: 'measurement changed after signing',
        evidence: evidence(flippedBytes(genuine, reportFields.measurement)),
      },
      { what: 'signature changed', evidence: evidence(flippedBytes(genuine, 0x2a0)) },
      { what: 'certificate of another AMD', evidence: evidence(genuine, await other.chipKey(chipId, tcb)) },
      {
        what: 'certificate of another TCB',
        evidence: evidence(genuine, await amd.chipKey(chipId, { ...tcb, snp: 7 })),
      },
      { what: 'certificate of a provider', evidence: evidence(genuine, await amd.providerKey(tcb), 'VLEK') },
      { what: 'no certificate', evidence: { ...evidence(genuine), cert_chain: null } },
      { what: 'after the certificates ended', evidence: evidence(genuine), against: { now: new Date('2050-01-01') } },
      {
        what: 'intermediate in the revocation list',
        evidence: evidence(genuine),
        by: under(from(await amd.revocationList([amd.ask]))),
      },
      {
        what: 'revocation list that has ended',
        evidence: evidence(genuine),
        by: under(from(await amd.revocationList([], new Date('2026-01-01')))),
      },
      { what: 'no revocation list where one is required', evidence: evidence(genuine), by: under([]) },
      { what: 'report without a member', evidence: { ...evidence(genuine), attestation_report: {} } },
    ],
  };
}

export async function azureSnpMutations(): Promise<MutatedTee> {
  const [amd, other] = await Promise.all([TestAmd.create(), TestAmd.create()]);
  const vcek = await amd.chipKey(chipId, tcb);
  const mint = (changes = {}, inside?: (report: Buffer) => void, key = vcek): Promise<JsonObject> =>
    azureSnpEvidence((bound) => mintReport(vcek, { chipId, reportData: bound, hostData }, inside), key.der, changes);
  const genuine = await mint();
  const [quote, second] = [genuine, await mint()].map((evidence) => evidence['tpm_quote'] as JsonObject);
  const pcrs = quote?.['pcrs'] as string[];
  const quoted = (change: JsonObject): JsonObject => ({ ...genuine, tpm_quote: { ...quote, ...change } });
  const hcl = (at: number): JsonObject => ({ ...genuine, hcl_report: flipped(genuine['hcl_report'], at, 'base64url') });
  const fewer = { tpmQuote: { registers: [0, 1, 2, 3] } };
  return {
    tee: 'az-snp-vtpm',
    verifier: azureSnpVerifier({ allowVersion2: false, requireRevocationList: false, root: () => amd.root }, []),
    expectations: { reportData, initDataDigest: azureInitdata, trustedAttestationKeys: [], now },
    genuine,
    mutations: [
      ...(await Promise.all(
        inReport.map(async ([what, change]) => ({
          what: `signed report: ${what}`,
          evidence: await mint({}, change),
        })),
      )),
      {
        what: 'report data that hold another digest',
        evidence: await mint({}, (report) => report.writeUInt8(1, 0x50)),
      },
      { what: 'measurement changed after signing', evidence: hcl(32 + 0x90) },
      { what: 'certificate of another AMD', evidence: await mint({}, undefined, await other.chipKey(chipId, tcb)) },
      { what: 'TPM key that the hardware does not vouch for', evidence: await mint({ keyOf: bootedTpm() }) },
      { what: 'quote of another machine', evidence: { ...genuine, tpm_quote: second ?? {} } },
      { what: 'signature of the quote', evidence: quoted({ signature: flipped(quote?.['signature'], 5, 'hex') }) },
      { what: 'magic of the quote', evidence: quoted({ message: flipped(quote?.['message'], 0, 'hex') }) },
      { what: 'something that is no quote', evidence: await mint({ tpmQuote: { type: 0x8017 } }) },
      { what: 'quote of fewer registers', evidence: await mint(fewer) },
      { what: 'quote of another bank', evidence: await mint({ tpmQuote: { bank: 0x0c } }) },
      { what: 'value of a register', evidence: quoted({ pcrs: [flipped(pcrs[0], 3, 'hex'), ...pcrs.slice(1)] }) },
      {
        what: 'registers in another order',
        evidence: quoted({ pcrs: [pcrs[1] ?? '', pcrs[0] ?? '', ...pcrs.slice(2)] }),
      },
      { what: 'registers left out', evidence: quoted({ pcrs: pcrs.slice(0, 8) }) },
      { what: 'quote for another session', evidence: await mint({ qualifyingData: Buffer.alloc(48, 8) }) },
      { what: 'user data of another session', evidence: await mint({ userData: Buffer.alloc(64, 8) }) },
      { what: 'type of the report', evidence: await mint({ reportType: 4 }) },
      { what: 'type of its digest', evidence: await mint({ hashType: 2 }) },
      { what: 'initdata that were not measured', evidence: genuine, against: { initDataDigest: Buffer.alloc(32, 1) } },
      { what: 'no session', evidence: genuine, against: { reportData: undefined } },
      { what: 'version of the evidence', evidence: { ...genuine, version: 3 } },
    ],
  };
}
