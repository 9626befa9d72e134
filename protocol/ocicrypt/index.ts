export {
  type AnnotationPacket,
  encodeAnnotationPacket,
  parseAnnotationPacket,
  unwrapPrivateOptions,
  type WrapType,
  wrapPrivateOptions,
} from './annotation-packet.ts';
export {
  type Annotations,
  attestationAgentProvider,
  type EncryptionAnnotations,
  keyProviderAnnotationPrefix,
  publicOptionsAnnotation,
  readEncryptionAnnotations,
  writeEncryptionAnnotations,
} from './descriptor-annotations.ts';
export {
  encodeKeyUnwrapRequest,
  encodeKeyUnwrapResponse,
  encodeKeyWrapRequest,
  encodeKeyWrapResponse,
  type KeyUnwrapRequest,
  type KeyWrapRequest,
  parseKeyUnwrapRequest,
  parseKeyUnwrapResponse,
  parseKeyWrapRequest,
  parseKeyWrapResponse,
} from './key-provider.ts';
export { createLayerDecryptor, createLayerEncryptor, type LayerEncryptor } from './layer-cipher.ts';
export { formatLayerMediaType, type LayerMediaType, parseLayerMediaType } from './media-types.ts';
export {
  encodePrivateLayerOptions,
  encodePublicLayerOptions,
  layerCipherName,
  type PrivateLayerOptions,
  type PublicLayerOptions,
  parsePrivateLayerOptions,
  parsePublicLayerOptions,
} from './options.ts';
