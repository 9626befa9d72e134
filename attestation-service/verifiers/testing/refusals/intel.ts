import { generateKeyPairSync } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { IntelCollateral } from '../../../endorsements/intel/collateral.ts';
import { azureTdxVerifier } from '../../azure/tdx.ts';
import { azureInitdata, azureReportData, azureTdxEvidence, bootedTpm, variableAt } from '../../azure/testing/mint.ts';
import type { DcapRules } from '../../dcap/endorse.ts';
import {
  type CollateralOptions,
  mintQuote,
  mintSource,
  type QuoteKind,
  type QuoteOptions,
  quoteParts,
  TestIntel,
  tcbLevel,
} from '../../dcap/testing/mint.ts';
import { sgxVerifier } from '../../sgx/index.ts';
import { tdxVerifier } from '../../tdx/index.ts';
import type { Verifier } from '../../verifier.ts';
import { flipped, flippedBytes, type MutatedTee, type Mutation } from './mutation.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = azureReportData;
const initDataDigest = azureInitdata;
const ended = '2026-05-31T00:00:00Z';

/** Rules under a test's Intel whose collateral is changed. */
function rules(intel: TestIntel, collateral: CollateralOptions = {}): DcapRules {
  const sources = [mintSource(intel, collateral)];
  const seen = { check: async () => undefined };
  return {
    root: intel.root,
    collateral: new IntelCollateral({ sources, root: intel.root, seen, channel: 'early' }),
    acceptExpiredCollateral: false,
  };
}

/** What is wrong with collateral, for any evidence that it is about. */
function collateralMutations(intel: TestIntel, other: TestIntel): readonly (readonly [string, CollateralOptions])[] {
  const list = { nextUpdate: new Date(ended) };
  return [
    ['no TCB info', { tcbInfo: null }],
    ['no identity of the quoting enclave', { qeIdentity: null }],
    ['no list of the root', { rootList: null }],
    ['no list of platforms', { pckList: null }],
    ['TCB info that has ended', { tcbInfo: { nextUpdate: ended } }],
    ['identity that has ended', { qeIdentity: { nextUpdate: ended } }],
    ['list of the root that has ended', { rootList: list }],
    ['list of platforms that has ended', { pckList: list }],
    ['TCB info of the future', { tcbInfo: { issueDate: '2026-07-01T00:00:00Z' } }],
    ['TCB info signed by another', { tcbInfoSigning: { signer: other.tcbSigner } }],
    ['TCB info that was changed', { tcbInfoSigning: { signed: '{}' } }],
    ['TCB info of another PCE', { tcbInfo: { pceId: 'abcd' } }],
    [
      'TCB info without a level of the platform',
      { tcbInfo: { tcbLevels: [tcbLevel('UpToDate', { pceSvn: 99, tdx: [] })] } },
    ],
    ['TCB info whose level is revoked', { tcbInfo: { tcbLevels: [tcbLevel('Revoked', { pceSvn: 1, tdx: [] })] } }],
    ['platform in the list', { pckList: { revoked: [intel.machine] } }],
    ['authority in the list', { rootList: { revoked: [intel.platform] } }],
    ['signer of TCB info in the list', { rootList: { revoked: [intel.tcbSigner] } }],
  ];
}

async function quotes(
  tee: 'tdx' | 'sgx',
  kind: QuoteKind,
  verifierOf: (rules: DcapRules) => Verifier,
): Promise<MutatedTee> {
  const [intel, other] = await Promise.all([TestIntel.create(), TestIntel.create()]);
  const field = tee === 'tdx' ? 'td' : 'enclave';
  const bound = {
    reportData: regularise(reportData, 64),
    ...(tee === 'tdx' ? { mrConfigId: regularise(initDataDigest, 48) } : { configId: regularise(initDataDigest, 64) }),
  };
  const bytes = (options: QuoteOptions = {}): Buffer =>
    mintQuote(intel, kind, { ...options, [field]: { ...bound, ...options[field] } });
  const quote = (what: string, options: QuoteOptions): Mutation => ({
    what: `quote ${what}`,
    evidence: { quote: bytes(options).toString('base64') },
  });
  const genuine = bytes();
  const { body, signature, attestationKey, qeReport, qeSignature } = quoteParts(kind);
  const after = (what: string, at: number): Mutation => ({
    what: `${what} changed after signing`,
    evidence: { quote: flippedBytes(genuine, at).toString('base64') },
  });
  const unknown = await intel.pck({ notAfter: new Date(ended) });
  return {
    tee,
    verifier: verifierOf(rules(intel)),
    expectations: { reportData, initDataDigest, trustedAttestationKeys: [], now },
    genuine: { quote: genuine.toString('base64') },
    mutations: [
      quote('of another vendor', { header: { vendorId: Buffer.alloc(16, 1) } }),
      quote('of an unknown version', { header: { version: 6 } }),
      quote('of another kind of key', { header: { attestationKeyType: 3 } }),
      quote('of an unknown TEE', { header: { teeType: 7 } }),
      quote('signed by another key', { quoteSigner: other.machine.key }),
      quote('whose quoting enclave another signed', { qeSigner: other.machine.key }),
      quote('with a key that its enclave did not report', { qe: { reportData: Buffer.alloc(64, 1) } }),
      quote('of an enclave of another signer', { qe: { mrSigner: Buffer.alloc(32, 1) } }),
      quote('of a quoting enclave in debug mode', {
        qe: { attributes: Buffer.from('17000000000000000700000000000000', 'hex') },
      }),
      quote('of another enclave of that signer', { qe: { isvProdId: 9 } }),
      quote('of an enclave below every level', { qe: { isvSvn: 1 } }),
      quote('of a platform of another root', { machine: other.machine, chain: other.chain() }),
      quote('of a platform whose certificate has ended', { machine: unknown, chain: intel.chain(unknown) }),
      quote('with the certificate of another platform', { chain: intel.chain(await intel.pck()) }),
      quote('with an unknown kind of certification', { certification: { type: 9, content: Buffer.alloc(4) } }),
      quote('of a platform that is not registered', { certification: { type: 7, content: Buffer.alloc(4) } }),
      quote('for another session', { [field]: { reportData: Buffer.alloc(64, 8) } }),
      quote('of other initdata', {
        [field]: tee === 'tdx' ? { mrConfigId: Buffer.alloc(48, 8) } : { configId: Buffer.alloc(64, 8) },
      }),
      ...(tee === 'sgx'
        ? []
        : [
            quote('of a module of another signer', { td: { mrSignerSeam: Buffer.alloc(48, 1) } }),
            quote('of a module with attributes', { td: { seamAttributes: Buffer.alloc(8, 1) } }),
          ]),
      after('body', body + 70),
      after('signature of the quote', signature + 3),
      after('attestation key', attestationKey + 3),
      after('report of the quoting enclave', qeReport + 70),
      after('signature of the quoting enclave', qeSignature + 3),
      { what: 'quote cut short', evidence: { quote: genuine.subarray(0, -200).toString('base64') } },
      ...collateralMutations(intel, other).map(([what, change]) => ({
        what: `collateral: ${what}`,
        evidence: { quote: genuine.toString('base64') },
        by: verifierOf(rules(intel, change)),
      })),
    ],
  };
}

export const tdxMutations = (): Promise<MutatedTee> => quotes('tdx', 'tdx-5-1.5', tdxVerifier);
export const sgxMutations = (): Promise<MutatedTee> => quotes('sgx', 'sgx-3', sgxVerifier);

export async function azureTdxMutations(): Promise<MutatedTee> {
  const [intel, other] = await Promise.all([TestIntel.create(), TestIntel.create()]);
  const [genuine, second] = [azureTdxEvidence(intel), azureTdxEvidence(intel)];
  const parts = quoteParts('tdx-4');
  const quote = genuine['tpm_quote'] as JsonObject;
  const pcrs = quote['pcrs'] as string[];
  const quoted = (change: JsonObject): JsonObject => ({ ...genuine, tpm_quote: { ...quote, ...change } });
  const inside = (name: 'hcl_report' | 'td_quote', at: number): JsonObject => ({
    ...genuine,
    [name]: flipped(genuine[name], at, 'base64url'),
  });
  const minted = (what: string, changes: Parameters<typeof azureTdxEvidence>[1]): Mutation => ({
    what,
    evidence: azureTdxEvidence(intel, changes),
  });
  const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  return {
    tee: 'az-tdx-vtpm',
    verifier: azureTdxVerifier(rules(intel)),
    expectations: { reportData, initDataDigest, trustedAttestationKeys: [], now },
    genuine,
    mutations: [
      { what: 'signature of the TPM', evidence: quoted({ signature: flipped(quote['signature'], 5, 'hex') }) },
      { what: 'magic of its quote', evidence: quoted({ message: flipped(quote['message'], 0, 'hex') }) },
      minted('quote of the TPM by another key', { tpmQuote: { signer: stranger } }),
      minted('something that is no quote', { tpmQuote: { type: 0x8017 } }),
      minted('quote of fewer registers', { tpmQuote: { registers: [0, 1, 2, 3] } }),
      minted('quote of another bank', { tpmQuote: { bank: 0x0c } }),
      { what: 'value of a register', evidence: quoted({ pcrs: [flipped(pcrs[0], 3, 'hex'), ...pcrs.slice(1)] }) },
      {
        what: 'registers in another order',
        evidence: quoted({ pcrs: [pcrs[1] ?? '', pcrs[0] ?? '', ...pcrs.slice(2)] }),
      },
      { what: 'registers left out', evidence: quoted({ pcrs: pcrs.slice(0, 8) }) },
      minted('quote for another session', { qualifyingData: Buffer.alloc(48, 8) }),
      minted('user data of another session', { userData: Buffer.alloc(64, 8) }),
      minted('type of the report', { reportType: 2 }),
      minted('type of its digest', { hashType: 2 }),
      minted('TPM key that the hardware does not vouch for', { keyOf: bootedTpm() }),
      { what: 'header of the report', evidence: inside('hcl_report', 0) },
      { what: 'key in the report', evidence: inside('hcl_report', variableAt + 80) },
      minted('TD that reports another digest', { tdReportData: Buffer.alloc(64, 7) }),
      { what: 'measurement of the TD changed after signing', evidence: inside('td_quote', parts.body + 140) },
      { what: 'key of the TD’s quote', evidence: inside('td_quote', parts.attestationKey + 3) },
      { what: 'report of the quoting enclave', evidence: inside('td_quote', parts.qeReport + 70) },
      minted('quote of another vendor', { quote: { header: { vendorId: Buffer.alloc(16, 1) } } }),
      minted('module of another signer', { quote: { td: { mrSignerSeam: Buffer.alloc(48, 1) } } }),
      { what: 'quote of another TD', evidence: { ...genuine, td_quote: second['td_quote'] ?? null } },
      { what: 'quote of another TPM', evidence: { ...genuine, tpm_quote: second['tpm_quote'] ?? null } },
      { what: 'initdata that were not measured', evidence: genuine, against: { initDataDigest: Buffer.alloc(32, 1) } },
      { what: 'no session', evidence: genuine, against: { reportData: undefined } },
      { what: 'version of the evidence', evidence: { ...genuine, version: 3 } },
      ...collateralMutations(intel, other).map(([what, change]) => ({
        what: `collateral: ${what}`,
        evidence: genuine,
        by: azureTdxVerifier(rules(intel, change)),
      })),
    ],
  };
}
