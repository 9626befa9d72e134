import { SealpodError } from '@sealpod/protocol/errors';
import { composeInitdata, encodeInitdataAnnotation, initdataDigest, parseInitdata } from '@sealpod/protocol/initdata';
import { parse, stringify } from 'smol-toml';

/** Annotation that carries a pod's initdata: base64 of gzip of the TOML document. */
export const initdataAnnotation = 'io.katacontainers.config.hypervisor.cc_init_data';

/** What the owner of a pod tells the guest. It is measured, and public: no secret belongs in it. */
export interface WorkloadInitdata {
  /** An initdata document to begin with; what follows replaces its parts. */
  readonly base?: string | undefined;
  /** The key broker, with the PEM certificate whose key the guest pins. */
  readonly kbs?: { readonly url: string; readonly certificatePem?: string } | undefined;
  /** Registries that may be spoken to by plain HTTP, as `host:port`. */
  readonly plainHttpRegistries?: readonly string[];
  /** References by digest; every other image is refused. */
  readonly images: readonly string[];
  readonly agentPolicy: string;
}

/** An initdata document, its annotation, and the digest that the guest is measured with. */
export interface EncodedInitdata {
  readonly toml: string;
  readonly annotation: string;
  /** Hex; the reference value `tpm_initdata`. */
  readonly digest: string;
}

/**
 * The initdata of a workload. Equal input gives equal bytes, hence an equal digest.
 *
 * @throws SealpodError INITDATA_SCHEMA where the base is malformed or holds what looks like a secret
 */
export function workloadInitdata(input: WorkloadInitdata): EncodedInitdata {
  const base = input.base === undefined ? undefined : parseInitdata(input.base);
  const attestationAgent = table(base?.data['aa.toml'], 'aa.toml');
  const dataHub = table(base?.data['cdh.toml'], 'cdh.toml');
  if (input.kbs !== undefined) {
    const { url, certificatePem } = input.kbs;
    const pin = certificatePem === undefined ? {} : { cert: certificatePem };
    attestationAgent['token_configs'] = { ...inner(attestationAgent, 'token_configs'), kbs: { url, ...pin } };
    dataHub['kbc'] = { name: 'cc_kbc', url, ...(certificatePem === undefined ? {} : { kbs_cert: certificatePem }) };
  }
  const image = inner(dataHub, 'image');
  delete image['image_security_policy_uri'];
  dataHub['image'] = {
    ...image,
    image_security_policy: imagePolicy(input.images),
    ...((input.plainHttpRegistries ?? []).length === 0
      ? {}
      : {
          registry_config: { registry: input.plainHttpRegistries?.map((location) => ({ location, insecure: true })) },
        }),
  };
  const data = {
    ...base?.data,
    ...(Object.keys(attestationAgent).length === 0 ? {} : { 'aa.toml': stringify(attestationAgent) }),
    'cdh.toml': stringify(dataHub),
    'policy.rego': input.agentPolicy,
  };
  const toml = composeInitdata({ algorithm: 'sha256', data });
  return {
    toml,
    annotation: encodeInitdataAnnotation(toml),
    digest: Buffer.from(initdataDigest(toml, 'sha256')).toString('hex'),
  };
}

/** containers-policy.json that allows these images, by digest, and no others. */
function imagePolicy(references: readonly string[]): string {
  const digests = new Map<string, Set<string>>();
  for (const reference of references) {
    const [repository = '', digest = ''] = reference.split('@');
    digests.set(repository, (digests.get(repository) ?? new Set()).add(digest));
  }
  const scopes = [...digests].sort(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify({
    default: [{ type: 'reject' }],
    transports: {
      docker: Object.fromEntries(scopes.map(([scope, of]) => [scope, [{ type: 'digest', digests: [...of].sort() }]])),
    },
  });
}

function table(text: string | undefined, what: string): Record<string, unknown> {
  try {
    return text === undefined ? {} : { ...parse(text) };
  } catch (cause) {
    throw new SealpodError('INITDATA_SCHEMA', `${what} of the given initdata is not TOML`, { cause });
  }
}

function inner(of: Readonly<Record<string, unknown>>, name: string): Record<string, unknown> {
  const value = of[name];
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}
