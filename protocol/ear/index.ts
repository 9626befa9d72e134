export { type Appraisal, type EarClaims, type EarStatus, parseEarClaims, teePubKeyOfEar } from './claims.ts';
export { isTrustClaim, statusOf, type TrustClaim, type TrustVector, tierOf, trustClaims } from './trust-vector.ts';
