import { parseResourceUri, type ResourceUri } from '@sealpod/protocol/resource-uri';
import { createKeyUnwrapper } from '../image/layer-keys.ts';
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

  /**
   * The private layer options (ocicrypt JSON) inside an annotation packet.
   *
   * @throws SealpodError IMG_DECRYPT_KEY, UNSUPPORTED, or the broker's refusal
   */
  async unwrapKey(annotationPacket: Uint8Array): Promise<Uint8Array> {
    return await createKeyUnwrapper((uri) => this.getResource(uri))(annotationPacket);
  }
}
