export { decodeBase64, decodeBase64Url, decodeHex } from './bytes.ts';
export { canonicalJson } from './canonical.ts';
export {
  asJsonObject,
  asJsonText,
  booleanMember,
  integerMember,
  objectMember,
  optionalMember,
  stringArrayMember,
  stringMember,
} from './members.ts';
export { asJsonOctets, type OctetLimits } from './octets.ts';
export { type JsonObject, type JsonValue, type ParseJsonLimits, parseJson } from './parse.ts';
