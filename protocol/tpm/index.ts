export {
  type AttestStructure,
  AttestType,
  attestMagic,
  parseAttest,
  parseQuoteInfo,
  type QuoteInfo,
} from './attest.ts';
export {
  Algorithm,
  Curve,
  digestBytes,
  Handle,
  hashName,
  ObjectAttribute,
  type TpmHash,
} from './constants.ts';
export { type MadeCredential, makeCredential, parseIdObject } from './credential.ts';
export { type ParsedTpmEvidence, parseTpmEvidence, pcrCount, type TpmEvidence } from './evidence.ts';
export { kdfA, kdfE } from './key-derivation.ts';
export { encodePcrSelection, type PcrSelection, parsePcrSelection } from './pcr-selection.ts';
export {
  type EccParameters,
  encodePublicArea,
  objectName,
  type PublicArea,
  parsePublicArea,
  publicAreaKey,
  type RsaParameters,
  type Scheme,
  type SymmetricDefinition,
} from './public-area.ts';
export { TpmReader } from './reader.ts';
export { encodeSignature, parseSignature, type Signature, verifySignature } from './signature.ts';
export { sized, uint8, uint16, uint32, uint64 } from './writer.ts';
