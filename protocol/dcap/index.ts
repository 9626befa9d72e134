/**
 * Quotes of Intel's DCAP (SGX and TDX), and the evidence of TEEs `tdx` and `sgx`.
 *
 * @module
 */
export type { CertificationData, QeCertification } from './certification-data.ts';
export type { EnclaveReport } from './enclave-report.ts';
export { parseSgxEvidence, parseTdxEvidence, type TdxEvidence } from './evidence.ts';
export { parseQuote, type Quote, type QuoteHeader, quoteHeaderBytes } from './quote.ts';
export type { TdAttributes, TdReport } from './td-report.ts';
