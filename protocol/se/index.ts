export { parseSeHeaderTags, seHeaderTagsBytes } from './header.ts';
export {
  parseSeEvidence,
  parseSeRequest,
  type SeAttestationRequest,
  type SeAttestationResponse,
  serializeSeRequest,
} from './messages.ts';
