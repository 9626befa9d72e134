/**
 * Evidence of Azure's confidential VMs: the hardware's report inside that of the paravisor, and a quote of its virtual TPM.
 *
 * @module
 */
export { type AzureVtpmEvidence, parseAzureVtpmEvidence } from './evidence.ts';
export { type HclReport, parseHclReport } from './hcl-report.ts';
