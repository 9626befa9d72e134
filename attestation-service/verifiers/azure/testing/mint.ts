import { createHash, createPublicKey } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import { SoftwareTpm, type QuoteOptions as TpmQuoteOptions } from '@sealpod/protocol/tpm/testing';
import { mintQuote, type QuoteOptions, type TestIntel } from '../../dcap/testing/mint.ts';

/** What minted machines of Azure's are bound to where a test does not say otherwise. */
export const azureReportData = Buffer.alloc(48, 7);
export const azureInitdata = Buffer.alloc(32, 9);

/** What a test makes another about a virtual machine of Azure, before it is signed and hashed. */
export interface AzureChanges {
  readonly version?: 0 | 1 | 2;
  readonly tpm?: SoftwareTpm;
  /** Of the key in the variable data, where it is another than the TPM's. */
  readonly keyOf?: SoftwareTpm;
  readonly qualifyingData?: Buffer;
  readonly tpmQuote?: TpmQuoteOptions;
  readonly userData?: Buffer;
  readonly reportType?: number;
  readonly hashType?: number;
}

/** What a test makes another about a TD of Azure's. */
export interface AzureTdxChanges extends AzureChanges {
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

/** The paravisor's report, with room for the hardware's. */
function hclReport(
  { attestationKey }: SoftwareTpm,
  reportType: number,
  { userData, hashType = 1 }: AzureChanges,
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

/** Digest of the variable data, as the hardware's report data hold it. */
function boundTo(hcl: Buffer): Buffer {
  const bound = Buffer.alloc(64);
  createHash('sha256').update(hcl.subarray(variableAt)).digest().copy(bound);
  return bound;
}

/** A quote of the virtual TPM; Azure's evidence has the signature by itself, without the TPM's structure around it. */
function quoteOf(tpm: SoftwareTpm, { qualifyingData = azureReportData, tpmQuote }: AzureChanges) {
  const { message, signature } = tpm.quote(qualifyingData, tpmQuote);
  return { message, signature: signature.subarray(6), pcrs: tpm.pcrs };
}

const inHexadecimal = ({ message, signature, pcrs }: ReturnType<typeof quoteOf>): JsonObject => ({
  signature: signature.toString('hex'),
  message: message.toString('hex'),
  pcrs: pcrs.map((value) => value.toString('hex')),
});

/** Evidence of a TD of Azure's, with all that binds its parts. */
export function azureTdxEvidence(intel: TestIntel, changes: AzureTdxChanges = {}): JsonObject {
  const { version = 2, tpm = bootedTpm() } = changes;
  const hcl = hclReport(changes.keyOf ?? tpm, changes.reportType ?? 4, changes);
  const quote = mintQuote(intel, 'tdx-4', {
    ...changes.quote,
    td: { reportData: changes.tdReportData ?? boundTo(hcl), ...changes.quote?.td },
  });
  const quoted = quoteOf(tpm, changes);
  if (version === 0) {
    const { message, signature, pcrs } = quoted;
    return {
      tpm_quote: { signature: [...signature], message: [...message], pcrs: pcrs.map((value) => [...value]) },
      hcl_report: [...hcl],
      td_quote: [...quote],
    };
  }
  return {
    version,
    tpm_quote: inHexadecimal(quoted),
    hcl_report: hcl.toString('base64url'),
    td_quote: quote.toString('base64url'),
  };
}

/**
 * Evidence of an SNP machine of Azure's, version 2.
 *
 * @param report makes the hardware's report, signed, for report data
 * @param vcek certificate of the key that signs it, DER
 */
export async function azureSnpEvidence(
  report: (reportData: Buffer) => Promise<Buffer>,
  vcek: Buffer,
  changes: AzureChanges = {},
): Promise<JsonObject> {
  const { tpm = bootedTpm() } = changes;
  const hcl = hclReport(changes.keyOf ?? tpm, changes.reportType ?? 2, changes);
  (await report(boundTo(hcl))).copy(hcl, 32);
  return {
    version: 2,
    tpm_quote: inHexadecimal(quoteOf(tpm, changes)),
    hcl_report: hcl.toString('base64url'),
    vcek: vcek.toString('base64url'),
  };
}
