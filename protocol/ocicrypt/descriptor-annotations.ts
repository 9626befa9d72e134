import { SealpodError } from '../errors.ts';
import { decodeBase64 } from '../json/index.ts';
import { encodePublicLayerOptions, type PublicLayerOptions, parsePublicLayerOptions } from './options.ts';

/** Annotations of an encrypted layer's descriptor (ocicrypt, `spec` and `keywrap`). */
export const publicOptionsAnnotation = 'org.opencontainers.image.enc.pubopts';
/** Followed by the provider's name. */
export const keyProviderAnnotationPrefix = 'org.opencontainers.image.enc.keys.provider.';
/** The name under which Confidential Containers' tools register their key provider. */
export const attestationAgentProvider = 'attestation-agent';

/** Annotation name → value. */
export type Annotations = Readonly<Record<string, string>>;

const maxPackets = 16;

/** What a descriptor says of its encryption: public options, and the packets of all key providers in order of name. */
export interface EncryptionAnnotations {
  readonly publicOptions: PublicLayerOptions;
  readonly annotationPackets: readonly Uint8Array[];
}

/**
 * Reads the annotations of an encrypted layer. A key provider's annotation counts whatever the provider's name, as
 * upstream has it; packets are not parsed.
 *
 * @throws SealpodError IMG_FORMAT, or IMG_DECRYPT_KEY where no key provider wrapped the key (e.g. JWE only)
 */
export function readEncryptionAnnotations(annotations: Annotations): EncryptionAnnotations {
  const code = 'IMG_FORMAT';
  const publicOptions = annotations[publicOptionsAnnotation];
  if (publicOptions === undefined) throw new SealpodError(code, `encrypted layer has no ${publicOptionsAnnotation}`);
  const annotationPackets = Object.entries(annotations)
    .filter(([name]) => name.startsWith(keyProviderAnnotationPrefix))
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .flatMap(([name, value]) => value.split(',').map((item) => decodeBase64(item, { what: name, code })));
  if (annotationPackets.length > maxPackets) throw new SealpodError(code, `more than ${maxPackets} wrapped keys`);
  if (annotationPackets.length === 0) {
    throw new SealpodError('IMG_DECRYPT_KEY', 'no suitable key found for decrypting layer key', {
      expected: `an annotation ${keyProviderAnnotationPrefix}*`,
    });
  }
  return {
    publicOptions: parsePublicLayerOptions(decodeBase64(publicOptions, { what: publicOptionsAnnotation, code })),
    annotationPackets,
  };
}

/** The two annotations that skopeo with a key provider adds to a layer's descriptor. */
export function writeEncryptionAnnotations(
  publicOptions: PublicLayerOptions,
  annotationPacket: Uint8Array,
  provider: string = attestationAgentProvider,
): Record<string, string> {
  return {
    [keyProviderAnnotationPrefix + provider]: Buffer.from(annotationPacket).toString('base64'),
    [publicOptionsAnnotation]: encodePublicLayerOptions(publicOptions).toString('base64'),
  };
}
