import { readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { ConfigReader } from './config-reader.ts';

/** A root of endorsement key certificates: PEM text, and whether the TPMs below it are software. */
export interface RootConfig {
  /** Shown in claims and explanations, e.g. `local-swtpm`. */
  readonly name: string;
  readonly certificates: string;
  readonly simulated: boolean;
}

/** What tokens say of their maker, and for how long. */
export interface TokenConfig {
  readonly issuer?: string;
  readonly developer?: string;
  readonly build?: string;
  readonly lifetimeSeconds?: number;
}

/** Where evidence is verified: in this process, or by a service behind `attestation.proto`. */
export type AttestationServiceConfig =
  | {
      readonly type: 'builtin';
      /** Enables TEE `tpm`. */
      readonly tpm?: { readonly roots: readonly RootConfig[] };
      /** Enables TEE `sample`, which proves nothing; for tests of the protocol. */
      readonly sample: boolean;
      readonly token: TokenConfig;
    }
  | {
      readonly type: 'grpc';
      /** `host:port`. */
      readonly address: string;
      /** PEM of the certificates that the service's one must chain to; without it the connection is in the clear. */
      readonly certificates?: string;
    };

function readPem(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SealpodError('USAGE', 'a certificate file cannot be read', { source: path, cause });
  }
}

/** `{name, simulated, certificatesFile}`, or `certificates` with the PEM text itself. */
function readRoot(root: ConfigReader): RootConfig {
  const inline = root.optionalText('certificates');
  const certificates = inline ?? readPem(root.path('certificatesFile'));
  const config = { name: root.text('name'), certificates, simulated: root.flag('simulated', false) };
  root.end();
  return config;
}

function readTpm(tpm: ConfigReader): { readonly roots: readonly RootConfig[] } {
  const config = { roots: tpm.objects('roots').map(readRoot) };
  tpm.end();
  return config;
}

function readToken(token: ConfigReader | undefined): TokenConfig {
  if (token === undefined) return {};
  const [issuer, developer, build] = ['issuer', 'developer', 'build'].map((name) => token.optionalText(name));
  const lifetimeSeconds = token.integer('lifetimeSeconds', { default: 300, minimum: 1, maximum: 3600 });
  token.end();
  return {
    lifetimeSeconds,
    ...(issuer === undefined ? {} : { issuer }),
    ...(developer === undefined ? {} : { developer }),
    ...(build === undefined ? {} : { build }),
  };
}

/** Reads the member `attestationService`. Throws `USAGE`. */
export function readAttestationService(service: ConfigReader): AttestationServiceConfig {
  const type = service.oneOf('type', ['builtin', 'grpc'] as const);
  let config: AttestationServiceConfig;
  if (type === 'grpc') {
    const address = service.text('address');
    const file = service.optionalPath('certificatesFile');
    config = file === undefined ? { type, address } : { type, address, certificates: readPem(file) };
  } else {
    const tpm = service.optionalObject('tpm');
    const token = readToken(service.optionalObject('token'));
    const base = { type, sample: service.flag('sample', false), token } as const;
    config = tpm === undefined ? base : { ...base, tpm: readTpm(tpm) };
  }
  service.end();
  return config;
}
