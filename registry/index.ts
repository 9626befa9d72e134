export { findCredentials } from './auth-file.ts';
export type { Credentials } from './authentication.ts';
export {
  type BlobUpload,
  type FetchedManifest,
  RegistryClient,
  type RegistryClientOptions,
} from './client.ts';
export { hashFor, isDigest, requireDigest, sha256Digest } from './digest.ts';
export {
  type ImageIdentity,
  type ImagePolicy,
  type ImageRequirement,
  parseImagePolicy,
  requireAllowed,
  type SignatureSource,
} from './image-policy.ts';
export { fetchSignatures, type ImageSignature } from './image-signature.ts';
export {
  type Descriptor,
  hostPlatform,
  type ImageIndex,
  type ImageManifest,
  maxManifestBytes,
  mediaTypes,
  type Platform,
  parseDescriptor,
  parseManifest,
  selectPlatform,
} from './manifest.ts';
export { formatReference, type ImageReference, parseReference } from './reference.ts';
