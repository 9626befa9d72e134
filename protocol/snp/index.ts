/**
 * Attestation reports of AMD SEV-SNP, and the evidence of TEE `snp`.
 *
 * @module
 */
export { parseSnpEvidence, type SnpCertificate, type SnpEvidence } from './evidence.ts';
export { type SnpGeneration, snpGenerations } from './generation.ts';
export {
  ecdsaP384Sha384,
  parseSnpReport,
  type SnpPlatform,
  type SnpPolicy,
  type SnpReport,
  type SnpSigningKey,
  snpReportBytes,
  snpSignedBytes,
} from './report.ts';
export { snpReportAsJson } from './report-json.ts';
export { parseSnpTcb, type SnpTcb } from './tcb.ts';
