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
  regularise,
  runtimeDataDigest,
  type RuntimeData,
  runtimeDataText,
} from './runtime-data.ts';
export { generateTeeKey, parseTeePubKey, teeKeyObject, type TeeKeyAlgorithm, type TeePubKey, teePubKeyOf } from './tee-pubkey.ts';
export { isTee, teeClassOf, type TeeName, teeNames } from './tee.ts';
