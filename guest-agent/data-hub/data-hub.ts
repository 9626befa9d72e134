import { SealpodError } from '@sealpod/protocol/errors';
import { parseAnnotationPacket, unwrapPrivateOptions } from '@sealpod/protocol/ocicrypt';
import { formatResourceUri, parseResourceUri, type ResourceUri } from '@sealpod/protocol/resource-uri';
import {
  parseSealedSecret,
  signingKeyUri,
  unverifiedPayload,
  vaultResource,
  verifySealedSecret,
} from './sealed-secret.ts';

/** What the data hub needs of the attestation agent. */
export interface ResourceSource {
  resource(uri: ResourceUri): Promise<Buffer>;
}

/** Pulls an image into `<bundle>/rootfs`; the guest's image client. */
export type PullImage = (
  reference: string,
  bundlePath: string,
  signal: AbortSignal,
) => Promise<{ readonly manifestDigest: string }>;

export interface DataHubOptions {
  readonly attestationAgent: ResourceSource;
  /** Only where measured configuration says so. */
  readonly skipSealedSecretVerification?: boolean;
}

/** Unwraps layer keys for one image: each key encryption key is fetched once, and forgotten with this object. */
export interface KeySession {
  /**
   * The private layer options (ocicrypt JSON) inside an annotation packet.
   *
   * @throws SealpodError IMG_DECRYPT_KEY with the broker's refusal as its cause and correlation id
   */
  unwrapKey(annotationPacket: Uint8Array): Promise<Buffer>;
}

/** Resources, sealed secrets and layer keys for the workload; everything comes from the attested key broker. */
export class DataHub {
  readonly #options: DataHubOptions;

  constructor(options: DataHubOptions) {
    this.#options = options;
  }

  /** @param uri e.g. `kbs:///default/key/1`. @throws SealpodError RES_NAME, or the broker's refusal */
  async getResource(uri: string): Promise<Buffer> {
    return await this.#options.attestationAgent.resource(parseResourceUri(uri));
  }

  /**
   * The value of a sealed secret, after its signature was verified with the key that its `kid` names in the broker.
   *
   * @throws SealpodError EV_SIGNATURE, REQUEST_FORMAT, UNSUPPORTED, RES_NAME, or the broker's refusal
   */
  async unsealSecret(sealed: Uint8Array): Promise<Buffer> {
    const text = Buffer.from(sealed).toString('latin1');
    const { attestationAgent } = this.#options;
    if (this.#options.skipSealedSecretVerification === true) {
      return await attestationAgent.resource(vaultResource(unverifiedPayload(text)));
    }
    const secret = parseSealedSecret(text);
    verifySealedSecret(secret, await attestationAgent.resource(signingKeyUri(secret)));
    return await attestationAgent.resource(vaultResource(secret.payload));
  }

  /** Begins unwrapping for one image. */
  keySession(): KeySession {
    const keys = new Map<string, Promise<Buffer>>();
    const fetchKey = (uri: ResourceUri): Promise<Buffer> => {
      const name = formatResourceUri(uri);
      const known = keys.get(name);
      if (known !== undefined) return known;
      const fetched = this.#options.attestationAgent.resource(uri);
      keys.set(name, fetched);
      // A refusal is not remembered: the owner may have allowed the key meanwhile.
      fetched.catch(() => keys.delete(name));
      return fetched;
    };
    return {
      unwrapKey: async (annotationPacket) => {
        const packet = parseAnnotationPacket(annotationPacket);
        if (packet.provider !== 'kbs') {
          throw new SealpodError('IMG_DECRYPT_KEY', 'the layer key is wrapped by another provider', {
            expected: 'kbs',
            actual: packet.provider,
          });
        }
        return unwrapPrivateOptions(packet, await keyOf(packet.keyId, fetchKey));
      },
    };
  }
}

async function keyOf(keyId: string, fetchKey: (uri: ResourceUri) => Promise<Buffer>): Promise<Buffer> {
  try {
    return await fetchKey(parseResourceUri(keyId));
  } catch (cause) {
    if (!(cause instanceof SealpodError)) throw cause;
    const { correlationId } = cause.detail;
    throw new SealpodError(
      'IMG_DECRYPT_KEY',
      `the layer key ${keyId.slice(0, 256)} was not released: ${cause.code}: ${cause.message}`,
      {
        cause,
        ...(correlationId === undefined ? {} : { correlationId }),
      },
    );
  }
}
