export {
  type Attestation,
  type Challenge,
  type ErrorInformation,
  type InitData,
  parseAttestation,
  parseChallenge,
  parseErrorInformation,
  parseRequest,
  protocolVersion,
  type Request,
  serializeAttestation,
  serializeChallenge,
  serializeErrorInformation,
  serializeRequest,
} from './messages.ts';
export { decryptResponse, encryptResponse, parseResponse, type Response } from './response.ts';
export {
  type HashAlgorithm,
  isHashAlgorithm,
  negotiatedHashAlgorithm,
  type RuntimeData,
  regularise,
  runtimeDataDigest,
  runtimeDataText,
} from './runtime-data.ts';
export { isTee, type TeeName, teeClassOf, teeNames } from './tee.ts';
export {
  generateTeeKey,
  parseTeePubKey,
  type TeeKeyAlgorithm,
  type TeePubKey,
  teeKeyObject,
  teePubKeyOf,
} from './tee-pubkey.ts';
