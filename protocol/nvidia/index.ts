/**
 * Attestation reports of NVIDIA's GPUs and switches, and the evidence of TEE `nvidia`.
 *
 * @module
 */
export { maxNvidiaDevices, type NvidiaArchitecture, type NvidiaDevice, parseNvidiaEvidence } from './evidence.ts';
export { type OpaqueData, type OpaqueField, OpaqueType, parseOpaqueData } from './opaque-data.ts';
export { type Measurement, type NvidiaReport, parseNvidiaReport, spdmCodes, spdmVersion } from './report.ts';
