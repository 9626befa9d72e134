import { createPublicKey, constants as cryptoConstants, type KeyObject, verify } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { parseJson } from '@sealpod/protocol/json';
import type { RegistryClient } from './client.ts';
import { parseManifest } from './manifest.ts';
import { type ImageReference, parseReference } from './reference.ts';

/** A signature of an image as cosign stores it: "simple signing", beside the image in its registry. */
export interface ImageSignature {
  /** The signed bytes. */
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

/** Which name of the image a signature has to be for. */
export type SignedIdentity =
  /** The repository that was asked for. */
  { readonly type: 'matchRepository' } | { readonly type: 'exactRepository'; readonly dockerRepository: string };

const payloadMediaType = 'application/vnd.dev.cosign.simplesigning.v1+json';
const signatureAnnotation = 'dev.cosignproject.cosign/signature';
const payloadType = 'cosign container image signature';
const maxPayloadBytes = 64 * 1024;
const maxSignatures = 32;

/**
 * The signatures of an image: tag `sha256-<hex>.sig` of its repository (cosign's signature specification). None where there
 * is no such tag.
 *
 * @throws SealpodError IMG_REGISTRY, IMG_AUTH, IMG_FORMAT, IMG_DIGEST
 */
export async function fetchSignatures(
  client: RegistryClient,
  repository: string,
  digest: string,
  signal?: AbortSignal,
): Promise<ImageSignature[]> {
  const tag = `${digest.replace(':', '-')}.sig`;
  const fetched = await client.fetchManifest(repository, tag, signal).catch((thrown: unknown) => {
    if (thrown instanceof SealpodError && /^404\b/.test(thrown.detail.actual ?? '')) return undefined;
    throw thrown;
  });
  if (fetched === undefined) return [];
  const manifest = parseManifest(fetched.bytes, fetched.mediaType);
  if (manifest.kind !== 'manifest') throw new SealpodError('IMG_FORMAT', 'the signatures of the image are an index');
  const layers = manifest.layers.filter(({ mediaType }) => mediaType === payloadMediaType).slice(0, maxSignatures);
  const signatures: ImageSignature[] = [];
  for (const layer of layers) {
    const text = layer.annotations?.[signatureAnnotation];
    if (text === undefined) continue;
    const payload = await client.fetchBlob(repository, layer, maxPayloadBytes, signal);
    signatures.push({ payload, signature: Buffer.from(text, 'base64') });
  }
  return signatures;
}

/**
 * Why none of some signatures holds: made with this key, for one of these digests and this name. Undefined where one does.
 *
 * @param key PEM of a public key: ECDSA, RSA or Ed25519
 */
export function signatureProblem(
  signatures: readonly ImageSignature[],
  key: string | Uint8Array,
  image: { readonly reference: ImageReference; readonly digests: readonly string[] },
  identity: SignedIdentity,
): string | undefined {
  if (signatures.length === 0) return 'the image is not signed';
  const publicKey = createPublicKey(Buffer.from(key));
  const genuine = signatures.filter(({ payload, signature }) => verifies(publicKey, payload, signature));
  if (genuine.length === 0) return 'no signature of the image was made with the key';
  const problems = genuine.map(({ payload }) => payloadProblem(payload, image, identity));
  return problems.includes(undefined) ? undefined : problems[0];
}

function verifies(key: KeyObject, payload: Uint8Array, signature: Uint8Array): boolean {
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return verify(null, payload, key, signature);
    case 'ec':
      return verify('sha256', payload, { key, dsaEncoding: 'der' }, signature);
    case 'rsa':
      return [cryptoConstants.RSA_PKCS1_PADDING, cryptoConstants.RSA_PKCS1_PSS_PADDING].some((padding) =>
        verify('sha256', payload, { key, padding }, signature),
      );
    default:
      return false;
  }
}

function payloadProblem(
  payload: Uint8Array,
  image: { readonly reference: ImageReference; readonly digests: readonly string[] },
  identity: SignedIdentity,
): string | undefined {
  const what = 'the signature of the image';
  const { critical } = parseJson(payload, { maxSize: maxPayloadBytes, maxDepth: 16, what, code: 'IMG_FORMAT' }) as {
    critical?: {
      type?: unknown;
      image?: { 'docker-manifest-digest'?: unknown };
      identity?: { 'docker-reference'?: unknown };
    };
  };
  if (critical?.type !== payloadType) return 'the signature is of another kind';
  const digest = critical.image?.['docker-manifest-digest'];
  if (typeof digest !== 'string' || !image.digests.includes(digest)) return 'the signature is for another image';
  const signed = repositoryOf(critical.identity?.['docker-reference']);
  const wanted =
    identity.type === 'exactRepository'
      ? repositoryOf(identity.dockerRepository)
      : `${image.reference.registry}/${image.reference.repository}`;
  return signed === wanted ? undefined : `the signature is for the name ${signed}, not for ${wanted}`;
}

function repositoryOf(text: unknown): string {
  if (typeof text !== 'string') return '(none)';
  try {
    const { registry, repository } = parseReference(text);
    return `${registry}/${repository}`;
  } catch {
    return '(malformed)';
  }
}
