import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import { type CollateralOptions, mintSource, quoteParts, TestIntel } from '../dcap/testing/mint.ts';
import { azureTdxVerifier } from './tdx.ts';
import {
  azureTdxEvidence,
  bootedTpm,
  azureInitdata as initDataDigest,
  azureReportData as reportData,
  variableAt,
} from './testing/mint.ts';

const now = new Date('2026-06-01T00:00:00Z');
let intel: TestIntel;
let folder: string;
let storage: Storage;
let channels = 0;

beforeAll(async () => {
  intel = await TestIntel.create();
  folder = mkdtempSync(join(tmpdir(), 'sealpod-azure-tdx-'));
  storage = await openStorage({ path: join(folder, 'db.sqlite') });
});
afterAll(async () => {
  await storage.close();
  rmSync(folder, { recursive: true, force: true });
});

async function verified(evidence: JsonValue, collateral: CollateralOptions = {}, bindings = {}) {
  const rules = {
    root: intel.root,
    collateral: new IntelCollateral({
      sources: [mintSource(intel, collateral)],
      root: intel.root,
      seen: new SeenBefore(storage, 'intel'),
      channel: `azure ${channels++}`,
    }),
    acceptExpiredCollateral: false,
  };
  const expectations = { reportData, initDataDigest, trustedAttestationKeys: [], now, ...bindings };
  return azureTdxVerifier(rules).verify(evidence, expectations);
}

async function refusals(evidence: JsonValue, collateral: CollateralOptions = {}, bindings = {}): Promise<string[]> {
  try {
    const { verdict } = await verified(evidence, collateral, bindings);
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown: ${thrown.code}`];
    throw thrown;
  }
}

describe('a minted TD of Azure', () => {
  it.each([0, 1, 2] as const)('verifies in evidence of version %s, with the claims of both parts', async (version) => {
    const tpm = bootedTpm();
    const { verdict, claims } = await verified(azureTdxEvidence(intel, { version, tpm }));
    expect(failures(verdict)).toEqual([]);
    expect(claims).toMatchObject({
      tcb_status: 'UpToDate',
      collateral_expiration_status: '0',
      quote: { header: { version: '0400', tee_type: '81000000' } },
      td_attributes: { debug: false },
      // Of the session, which the TPM was asked for; the TD's own report data hold the TPM.
      report_data: reportData.toString('hex'),
      init_data: tpm.pcrs[8]?.toString('hex'),
      tpm: { pcr00: tpm.pcrs[0]?.toString('hex'), pcr23: '00'.repeat(32) },
    });
  });

  const flip = (text: unknown, at: number, encoding: 'hex' | 'base64url'): string => {
    const bytes = Buffer.from(String(text), encoding);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes.toString(encoding);
  };
  const inQuote = (evidence: JsonObject, name: 'signature' | 'message', at: number): JsonObject => {
    const quote = evidence['tpm_quote'] as JsonObject;
    return { ...evidence, tpm_quote: { ...quote, [name]: flip(quote[name], at, 'hex') } };
  };
  const withRegisters = (evidence: JsonObject, change: (pcrs: string[]) => string[]): JsonObject => {
    const quote = evidence['tpm_quote'] as JsonObject;
    return { ...evidence, tpm_quote: { ...quote, pcrs: change(quote['pcrs'] as string[]) } };
  };
  const inside = (name: 'hcl_report' | 'td_quote', at: number): JsonObject => {
    const evidence = azureTdxEvidence(intel);
    return { ...evidence, [name]: flip(evidence[name], at, 'base64url') };
  };
  const parts = quoteParts('tdx-4');

  it.each<[string, string, () => JsonValue]>([
    [
      'the signature of the TPM',
      'quote signature: EV_SIGNATURE',
      () => inQuote(azureTdxEvidence(intel), 'signature', 5),
    ],
    ['the magic of its quote', 'quote structure: EV_SIGNATURE', () => inQuote(azureTdxEvidence(intel), 'message', 0)],
    [
      'what the quote is qualified by',
      'report data: EV_BINDING_MISMATCH',
      () => inQuote(azureTdxEvidence(intel), 'message', 50),
    ],
    [
      'a quote signed by another key',
      'quote signature: EV_SIGNATURE',
      () =>
        azureTdxEvidence(intel, {
          tpmQuote: { signer: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey },
        }),
    ],
    [
      'something that is no quote',
      'quote structure: EV_SIGNATURE',
      () => azureTdxEvidence(intel, { tpmQuote: { type: 0x8017 } }),
    ],
    [
      'a quote of fewer registers',
      'quoted registers: EV_SIGNATURE',
      () => azureTdxEvidence(intel, { tpmQuote: { registers: [0, 1, 2, 3] } }),
    ],
    [
      'a quote of another bank',
      'quoted registers: EV_SIGNATURE',
      () => azureTdxEvidence(intel, { tpmQuote: { bank: 0x0c } }),
    ],
    [
      'the value of a register',
      'register values: EV_SIGNATURE',
      () => withRegisters(azureTdxEvidence(intel), ([first, ...others]) => [flip(first, 3, 'hex'), ...others]),
    ],
    [
      'registers in another order',
      'register values: EV_SIGNATURE',
      () =>
        withRegisters(azureTdxEvidence(intel), ([first = '', second = '', ...others]) => [second, first, ...others]),
    ],
    [
      'registers left out',
      'thrown: EV_FORMAT',
      () => withRegisters(azureTdxEvidence(intel), (pcrs) => pcrs.slice(0, 8)),
    ],
    [
      'the session of the quote',
      'report data: EV_BINDING_MISMATCH',
      () => azureTdxEvidence(intel, { qualifyingData: Buffer.alloc(48, 8) }),
    ],
    [
      'the user data',
      'user data: EV_BINDING_MISMATCH',
      () => azureTdxEvidence(intel, { userData: Buffer.alloc(64, 8) }),
    ],
    ['the type of the report', 'HCL report: EV_FORMAT', () => azureTdxEvidence(intel, { reportType: 2 })],
    ['the type of its digest', 'HCL report: EV_FORMAT', () => azureTdxEvidence(intel, { hashType: 2 })],
    ['the header of the report', 'thrown: EV_FORMAT', () => inside('hcl_report', 0)],
    ['a key in the report', 'binding of the virtual TPM: EV_PART_MIX', () => inside('hcl_report', variableAt + 80)],
    [
      'what the TD reports',
      'binding of the virtual TPM: EV_PART_MIX',
      () => azureTdxEvidence(intel, { tdReportData: Buffer.alloc(64, 7) }),
    ],
    ['a measurement of the TD', 'quote signature: EV_SIGNATURE', () => inside('td_quote', parts.body + 140)],
    [
      'the key of the TD’s quote',
      'attestation key: EV_AK_UNTRUSTED',
      () => inside('td_quote', parts.attestationKey + 3),
    ],
    [
      'the quoting enclave',
      'signature of the quoting enclave: EV_SIGNATURE',
      () => inside('td_quote', parts.qeReport + 70),
    ],
    [
      'the module’s signer',
      'signer of the TDX module: EV_TCB_STATUS',
      () => azureTdxEvidence(intel, { quote: { td: { mrSignerSeam: Buffer.alloc(48, 1) } } }),
    ],
    [
      'the version of the evidence',
      'thrown: EV_FORMAT',
      () => {
        const evidence = azureTdxEvidence(intel);
        return { ...evidence, version: 3 };
      },
    ],
  ])('%s changed: %s', async (_name, expected, evidence) => {
    expect(await refusals(evidence())).toContain(expected);
  });

  it('G-22: parts of two machines that are both genuine', async () => {
    const [one, other] = [azureTdxEvidence(intel), azureTdxEvidence(intel)];
    for (const [part, expected] of [
      ['td_quote', 'binding of the virtual TPM: EV_PART_MIX'],
      ['hcl_report', 'quote signature: EV_SIGNATURE'],
      ['tpm_quote', 'quote signature: EV_SIGNATURE'],
    ] as const)
      expect(await refusals({ ...one, [part]: other[part] ?? null }), part).toContain(expected);
  });

  it('G-05: a TPM whose key no hardware vouches for', async () => {
    const found = await refusals(azureTdxEvidence(intel, { keyOf: bootedTpm() }));
    expect(found).toContain('quote signature: EV_SIGNATURE');
  });

  it('initdata that was not measured, and evidence for no session at all', async () => {
    const evidence = azureTdxEvidence(intel);
    expect(await refusals(evidence, {}, { initDataDigest: Buffer.alloc(32, 1) })).toEqual([
      'initdata: INITDATA_DIGEST',
    ]);
    expect(await refusals(evidence, {}, { reportData: undefined })).toEqual([
      'report data: EV_BINDING_MISMATCH',
      'user data: EV_BINDING_MISMATCH',
    ]);
  });

  it('nothing verifies without current collateral', async () => {
    const evidence = azureTdxEvidence(intel);
    expect(await refusals(evidence, { tcbInfo: null })).toEqual(['TCB info: EV_COLLATERAL_UNAVAILABLE']);
    expect(await refusals(evidence, { tcbInfo: { nextUpdate: '2026-05-31T00:00:00Z' } })).toEqual([
      'TCB info: EV_COLLATERAL_EXPIRED',
    ]);
    expect(await refusals(evidence, { pckList: { revoked: [intel.machine] } })).toEqual([
      'certificate of the platform: EV_CERT_REVOKED',
    ]);
  });

  it('malformed members are refused by name', async () => {
    for (const version of [0, 1, 2] as const) {
      const evidence = azureTdxEvidence(intel, { version });
      for (const member of Object.keys(evidence).filter((key) => key !== 'version'))
        for (const value of [null, 5, [], {}, '', 'x'])
          expect(await refusals({ ...evidence, [member]: value }), `${version} ${member}`).toEqual([
            'thrown: EV_FORMAT',
          ]);
    }
  });
});
