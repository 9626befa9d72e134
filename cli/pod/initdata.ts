import { composeInitdata } from '@sealpod/protocol/initdata';
import { stringify } from 'smol-toml';

/** What the owner of a pod tells the guest. It is measured, and public: no secret belongs in it. */
export interface PodInitdataInput {
  readonly kbsUrl: string;
  /** PEM of the key broker's certificate; the guest talks to the holder of its key and to nobody else. */
  readonly kbsCertificatePem: string;
  /** Registries that may be spoken to by plain HTTP, as `host:port`. */
  readonly plainHttpRegistries: readonly string[];
  /** Digests of the image manifests the guest may run. */
  readonly imageDigests: readonly string[];
  /** The repository they belong to, as `host:port/name`. */
  readonly imageRepository: string;
  readonly agentPolicy: string;
}

/** The initdata document of one pod (TOML text). Equal input gives equal bytes, hence an equal digest. */
export function podInitdata(input: PodInitdataInput): string {
  const imagePolicy = {
    default: [{ type: 'reject' }],
    transports: { docker: { [input.imageRepository]: [{ type: 'digest', digests: [...input.imageDigests] }] } },
  };
  const attestationAgent = { token_configs: { kbs: { url: input.kbsUrl, cert: input.kbsCertificatePem } } };
  const dataHub = {
    kbc: { name: 'cc_kbc', url: input.kbsUrl, kbs_cert: input.kbsCertificatePem },
    image: {
      image_security_policy: JSON.stringify(imagePolicy),
      registry_config: { registry: input.plainHttpRegistries.map((location) => ({ location, insecure: true })) },
    },
  };
  return composeInitdata({
    algorithm: 'sha256',
    data: { 'aa.toml': stringify(attestationAgent), 'cdh.toml': stringify(dataHub), 'policy.rego': input.agentPolicy },
  });
}
