export {
  type HygonCertificate,
  hygonAuthorityBytes,
  hygonKeyBytes,
  hygonSm2Signature,
  hygonUsage,
  parseHygonAuthority,
  parseHygonKey,
  type Sm2PublicKey,
  type Sm2Signature,
} from './certificate.ts';
export { type CsvEvidence, type HygonChipChain, parseCsvEvidence } from './csv-evidence.ts';
export { type CsvReport, csvPageBytes, parseCsvReport } from './csv-report.ts';
export { type DcuReport, parseDcuEvidence } from './dcu-evidence.ts';
