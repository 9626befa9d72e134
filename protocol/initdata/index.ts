/**
 * Initdata: the configuration document that an owner gives to a guest, and its carriers (Kata's disk and annotation).
 *
 * @module
 */
export {
  type AttestationAgentConfiguration,
  type DataHubConfiguration,
  type RegistryRule,
  readAttestationAgentConfiguration,
  readDataHubConfiguration,
} from './components.ts';
export { composeInitdata } from './compose.ts';
export {
  decodeInitdataAnnotation,
  decodeInitdataDisk,
  encodeInitdataAnnotation,
  encodeInitdataDisk,
  initdataDiskHeaderBytes,
  initdataDiskLength,
  initdataDiskMagic,
  maxInitdataCompressedBytes,
} from './disk.ts';
export {
  type Initdata,
  type InitdataAlgorithm,
  initdataAlgorithms,
  initdataDigest,
  initdataFiles,
  initdataText,
  initdataVersion,
  maxInitdataBytes,
  parseInitdata,
} from './document.ts';
