import { readFileSync } from 'node:fs';
import {
  type RootConfiguration,
  readReferenceValuesConfig,
  readVerifiersConfig,
  type AttestationServiceConfig as ServiceConfig,
  type TokenConfig,
} from '@sealpod/attestation-service';
import { SealpodError } from '@sealpod/protocol/errors';
import type { ConfigReader } from './config-reader.ts';
import type { KeySetSource } from './key-set.ts';

/** Where evidence is verified: in this process, or by a service behind `attestation.proto`. */
export type AttestationServiceConfig =
  | (Omit<ServiceConfig, 'rego' | 'now'> & {
      readonly type: 'builtin';
      readonly sample: boolean;
      readonly token: TokenConfig;
    })
  | {
      readonly type: 'grpc';
      /** `host:port`. */
      readonly address: string;
      /** PEM texts; without them the connection is in the clear, for loopback addresses. */
      readonly tls?: {
        readonly certificates: string;
        readonly client?: { readonly certificate: string; readonly key: string };
      };
      /** The service's shared secret, for its administration and explanations. */
      readonly adminSecret?: string;
      /** Where the keys that sign its tokens are: a file that pins them, or its own publication. */
      readonly keys: KeySetSource;
      readonly timeoutMs: number;
    };

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SealpodError('USAGE', 'a file that the configuration names cannot be read', { source: path, cause });
  }
}

/** `{name, simulated, certificatesFile}`, or `certificates` with the PEM text itself. */
function readRoot(root: ConfigReader): RootConfiguration {
  const inline = root.optionalText('certificates');
  const certificates = inline ?? readText(root.path('certificatesFile'));
  const config = { name: root.text('name'), certificates, simulated: root.flag('simulated', false) };
  root.end();
  return config;
}

function readTpm(tpm: ConfigReader): NonNullable<ServiceConfig['tpm']> {
  const config = {
    roots: tpm.objects('roots').map(readRoot),
    requireTrustedKey: tpm.flag('requireTrustedKey', false),
  };
  tpm.end();
  return config;
}

function readToken(token: ConfigReader | undefined): TokenConfig {
  if (token === undefined) return {};
  const [issuer, developer, build, audience] = ['issuer', 'developer', 'build', 'audience'].map((name) =>
    token.optionalText(name),
  );
  const lifetimeSeconds = token.integer('lifetimeSeconds', { default: 300, minimum: 1, maximum: 3600 });
  const verbose = token.flag('verbose', true);
  // Zero: the key signs until it is rotated by hand.
  const rotateKeyAfterSeconds = token.integer('rotateKeyAfterSeconds', {
    default: 0,
    minimum: 0,
    maximum: 315_360_000,
  });
  token.end();
  return {
    lifetimeSeconds,
    verbose,
    ...(rotateKeyAfterSeconds === 0 ? {} : { rotateKeyAfterSeconds }),
    ...(audience === undefined ? {} : { audience }),
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
    config = readGrpc(service);
  } else {
    const tpm = service.optionalObject('tpm');
    const token = readToken(service.optionalObject('token'));
    const base = { type, sample: service.flag('sample', false), token } as const;
    const referenceValues = service.optionalJson('referenceValues');
    const at = (path: string): string => service.resolve(path);
    config = {
      ...base,
      ...readVerifiersConfig((name) => service.optionalJson(name), at),
      ...(tpm === undefined ? {} : { tpm: readTpm(tpm) }),
      ...(referenceValues === undefined
        ? {}
        : { referenceValues: readReferenceValuesConfig(referenceValues, at, readText) }),
    };
  }
  service.end();
  return config;
}

function readGrpc(service: ConfigReader): AttestationServiceConfig {
  const address = service.text('address');
  const certificates = service.optionalPath('certificatesFile');
  const clientCertificate = service.optionalPath('clientCertificateFile');
  const secretFile = service.optionalPath('adminSecretFile');
  const pinned = service.optionalPath('jwksFile');
  const base = {
    type: 'grpc',
    address,
    keys: pinned === undefined ? { url: service.text('jwksUrl') } : { file: pinned },
    timeoutMs: service.integer('timeoutMs', { default: 10_000, minimum: 1 }),
    ...(secretFile === undefined ? {} : { adminSecret: readText(secretFile).trim() }),
  } as const;
  if (certificates === undefined) return base;
  const tls = { certificates: readText(certificates) };
  if (clientCertificate === undefined) return { ...base, tls };
  const client = { certificate: readText(clientCertificate), key: readText(service.path('clientKeyFile')) };
  return { ...base, tls: { ...tls, client } };
}
