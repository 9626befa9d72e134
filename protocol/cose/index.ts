export {
  asCborArray,
  asCborBytes,
  asCborInteger,
  asCborMap,
  asCborText,
  type CborMap,
  CborTag,
  type CborValue,
  type DecodeCborOptions,
  decodeCbor,
  describeCbor,
  encodeCbor,
} from './cbor.ts';
export { parseCoseKey } from './key.ts';
export {
  type CoseSign1,
  coseAlgorithmName,
  coseHeader,
  coseSign1Tag,
  parseCoseSign1,
  verifyCoseSign1,
} from './sign1.ts';
