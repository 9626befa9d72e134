import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { type AzureVtpmEvidence, type HclReport, parseHclReport } from '@sealpod/protocol/azure';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { Algorithm, AttestType, parseAttest, parseQuoteInfo, pcrCount } from '@sealpod/protocol/tpm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';
import { checkInitdata } from '../tpm/boot-log.ts';
import { checkPcrDigest, checkSelection, checkSignature, checkStructure } from '../tpm/quote.ts';
import type { TpmStatement } from '../tpm/statement.ts';
import type { Expectations } from '../verifier.ts';

/** What the virtual TPM and the paravisor said, completely parsed. Nothing is verified. */
export interface VirtualTpmStatement
  extends Pick<TpmStatement, 'attestationKey' | 'attest' | 'attestBytes' | 'quote' | 'signature' | 'pcrs'> {
  readonly version: AzureVtpmEvidence['version'];
  readonly hcl: HclReport;
}

/** @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE */
export function parseVirtualTpm({ version, quote, hclReport }: AzureVtpmEvidence): VirtualTpmStatement {
  if (quote.pcrs.length !== pcrCount) {
    throw new SealpodError('EV_FORMAT', 'wrong number of registers', {
      expected: `${pcrCount}`,
      actual: `${quote.pcrs.length}`,
    });
  }
  const hcl = parseHclReport(hclReport);
  const attest = parseAttest(quote.message);
  return {
    version,
    hcl,
    attestationKey: importKey(hcl.attestationKey),
    attest,
    attestBytes: quote.message,
    ...(attest.type === AttestType.quote ? { quote: parseQuoteInfo(attest.attested) } : {}),
    signature: { scheme: 'rsassa', hash: Algorithm.sha256, signature: quote.signature },
    pcrs: quote.pcrs,
  };
}

function importKey({ n, e }: JsonObject): KeyObject {
  try {
    return createPublicKey({ key: { kty: 'RSA', n: String(n), e: String(e) }, format: 'jwk' });
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', 'the attestation key of the HCL report is no RSA key', { cause });
  }
}

const sha256Type = 1;

/**
 * The virtual TPM belongs to the machine whose hardware report (or quote) has `hardwareReportData`, and its quote answers
 * this session.
 */
export function checkVirtualTpm(
  statement: VirtualTpmStatement,
  hardware: { readonly reportType: number; readonly reportData: Buffer },
  { reportData, initDataDigest }: Expectations,
): Verdict[] {
  const { hcl, attest, pcrs } = statement;
  const digest = createHash('sha256').update(hcl.variableData).digest();
  return [
    check('HCL report', hcl.reportType === hardware.reportType && hcl.hashType === sha256Type, 'EV_FORMAT', {
      expected: `report type ${hardware.reportType}, hash type ${sha256Type}`,
      actual: `report type ${hcl.reportType}, hash type ${hcl.hashType}`,
    }),
    check('binding of the virtual TPM', digest.equals(hardware.reportData.subarray(0, 32)), 'EV_PART_MIX', {
      expected: digest.toString('hex'),
      actual: hardware.reportData.subarray(0, 32).toString('hex'),
      source: 'digest of the variable data in the report data of the hardware',
    }),
    checkStructure(statement),
    checkSignature(statement),
    checkSelection(statement),
    checkPcrDigest(statement),
    check('report data', reportData?.equals(attest.extraData) ?? false, 'EV_BINDING_MISMATCH', {
      expected: reportData?.toString('hex') ?? 'runtime data, which this TEE requires',
      actual: attest.extraData.toString('hex'),
      source: 'digest of nonce and tee-pubkey',
    }),
    ...(statement.version < 2 ? [] : [checkUserData(hcl, reportData)]),
    ...(initDataDigest === undefined ? [] : [checkInitdata(pcrs, initDataDigest)]),
  ];
}

/** From version 2 on the paravisor has the report data too, so that the hardware's report is bound to the session itself. */
function checkUserData({ userData }: HclReport, reportData: Buffer | undefined): Verdict {
  const holds = reportData !== undefined && userData?.subarray(0, reportData.length).equals(reportData) === true;
  return check('user data', holds, 'EV_BINDING_MISMATCH', {
    expected: reportData?.toString('hex') ?? 'runtime data',
    actual: userData?.toString('hex') ?? 'none',
    source: 'user-data of the HCL report',
  });
}

/** Claims of the registers and of the session, as upstream has them. */
export function virtualTpmClaims({ pcrs, attest }: VirtualTpmStatement): JsonObject {
  return {
    tpm: Object.fromEntries(
      pcrs.map((value, index) => [`pcr${String(index).padStart(2, '0')}`, value.toString('hex')]),
    ),
    init_data: pcrs[8]?.toString('hex') ?? '',
    report_data: attest.extraData.toString('hex'),
  };
}
