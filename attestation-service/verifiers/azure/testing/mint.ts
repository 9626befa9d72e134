import { createHash, createPublicKey } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import { SoftwareTpm, type QuoteOptions as TpmQuoteOptions } from '@sealpod/protocol/tpm/testing';
import { mintQuote, type QuoteOptions, type TestIntel } from '../../dcap/testing/mint.ts';

/** What minted machines of Azure's are bound to where a test does not say otherwise. */
export const azureReportData = Buffer.alloc(48, 7);
export const azureInitdata = Buffer.alloc(32, 9);

/** What a test makes another about a machine of Azure, before it is signed and hashed. */
export interface AzureTdxChanges {
  readonly version?: 0 | 1 | 2;
  readonly tpm?: SoftwareTpm;
  /** Of the key in the variable data, where it is another than the TPM's. */
  readonly keyOf?: SoftwareTpm;
  readonly qualifyingData?: Buffer;
  readonly tpmQuote?: TpmQuoteOptions;
  readonly userData?: Buffer;
  readonly reportType?: number;
  readonly hashType?: number;
  readonly quote?: QuoteOptions;
  /** Of the quote. */
  readonly tdReportData?: Buffer;
}

/** A TPM whose register 8 has the digest of the initdata. */
export function bootedTpm(initDataDigest = azureInitdata): SoftwareTpm {
  const tpm = new SoftwareTpm({ attestationKey: 'rsa' });
  for (let register = 0; register < 8; register++) tpm.extend(register, Buffer.alloc(32, register + 1));
  tpm.extend(8, initDataDigest);
  return tpm;
}

function hclReport(
  { attestationKey }: SoftwareTpm,
  { userData, reportType = 4, hashType = 1 }: AzureTdxChanges,
): Buffer {
  const { n = '', e = '' } = createPublicKey(attestationKey).export({ format: 'jwk' });
  const variable = Buffer.from(
    JSON.stringify({
      keys: [{ kid: 'HCLAkPub', kty: 'RSA', key_ops: ['sign'], n, e }],
      'vm-configuration': { 'secure-boot': true },
      'user-data': (userData ?? Buffer.concat([azureReportData, Buffer.alloc(16)])).toString('hex'),
    }),
  );
  const head = Buffer.alloc(32 + 1184 + 20);
  head.write('HCLA', 'latin1');
  [variable.length + 20, 1, reportType, hashType, variable.length].forEach((value, index) => {
    head.writeUInt32LE(value, 32 + 1184 + index * 4);
  });
  return Buffer.concat([head, variable]);
}

/** Where the variable data of a minted HCL report begin. */
export const variableAt = 32 + 1184 + 20;

/** Evidence of a TD of Azure's, with all that binds its parts. */
export function azureTdxEvidence(intel: TestIntel, changes: AzureTdxChanges = {}): JsonObject {
  const { version = 2, tpm = bootedTpm(), qualifyingData = azureReportData } = changes;
  const hcl = hclReport(changes.keyOf ?? tpm, changes);
  const bound = Buffer.alloc(64);
  createHash('sha256').update(hcl.subarray(variableAt)).digest().copy(bound);
  const quote = mintQuote(intel, 'tdx-4', {
    ...changes.quote,
    td: { reportData: changes.tdReportData ?? bound, ...changes.quote?.td },
  });
  const { message, signature } = tpm.quote(qualifyingData, changes.tpmQuote);
  // Azure's evidence has the signature by itself, without the TPM's structure around it.
  const raw = signature.subarray(6);
  if (version === 0) {
    const pcrs = tpm.pcrs.map((value) => [...value]);
    return {
      tpm_quote: { signature: [...raw], message: [...message], pcrs },
      hcl_report: [...hcl],
      td_quote: [...quote],
    };
  }
  return {
    version,
    tpm_quote: {
      signature: raw.toString('hex'),
      message: message.toString('hex'),
      pcrs: tpm.pcrs.map((value) => value.toString('hex')),
    },
    hcl_report: hcl.toString('base64url'),
    td_quote: quote.toString('base64url'),
  };
}
