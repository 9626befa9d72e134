import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  booleanMember,
  integerMember,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';
import type { AttestationServiceConfig, TokenConfig } from './config.ts';
import { optionalFlag, refuseUnknownMembers as refuseUnknown } from './endorsements/config-members.ts';
import { checkExposure, type GrpcServerOptions } from './grpc/server.ts';
import type { KeyServerOptions } from './http/key-server.ts';
import { readCcaConfig } from './verifiers/cca/config.ts';
import { readHygonConfig } from './verifiers/hygon/config.ts';
import { readNitroConfig } from './verifiers/nitro/config.ts';
import { readNvidiaConfig } from './verifiers/nvidia/config.ts';
import { readDpuConfig } from './verifiers/nvidia-dpu/config.ts';
import { readSnpConfig } from './verifiers/snp/config.ts';

/** Configuration of the service as a program. */
export interface MainConfig {
  readonly storagePath: string;
  readonly service: AttestationServiceConfig;
  readonly grpc: GrpcServerOptions;
  readonly keys?: KeyServerOptions;
}

const code = 'USAGE';

/**
 * Reads a configuration file (JSON). Paths are relative to the file. Members:
 *
 * - `storage` path of the database
 * - `listen` `host:port` of gRPC; `jwks` `{host, port}` of the key server, optional
 * - `tls` `{certificateFile, keyFile, clientAuthoritiesFile?}`, required beyond loopback
 * - `adminSecretFile` a file that only its owner can read; or `openAdministration: true` on loopback
 * - `tpm` `{roots: [{name, certificatesFile, simulated}], requireTrustedKey?}`, `snp`, `cca`, `csv` and `hygondcu` as `readSnpConfig`,
 *   `readCcaConfig` and `readHygonConfig` have them, `nvidia`, `nvidiaDpu` and `nitro` as
 *   `readNvidiaConfig`, `readDpuConfig` and `readNitroConfig` have them, `sample` boolean
 * - `token` `{issuer?, developer?, build?, profile?, lifetimeSeconds?}`
 *
 * @throws SealpodError USAGE naming the member
 */
export function readMainConfig(path: string): MainConfig {
  const root = asJsonObject(parseJson(readText(path), { what: `configuration ${path}`, code }), 'configuration', code);
  refuseUnknown(
    root,
    [
      'storage',
      'listen',
      'jwks',
      'tls',
      'adminSecretFile',
      'openAdministration',
      'tpm',
      'snp',
      'cca',
      'nvidia',
      'nvidiaDpu',
      'nitro',
      'sample',
      'token',
    ],
    'configuration',
  );
  const at = (file: string): string => resolve(dirname(path), file);
  const tls = optional(root, 'tls', (value) => readTls(asJsonObject(value, 'tls', code), at));
  const adminSecret = optional(root, 'adminSecretFile', (value) =>
    readSecret(at(asJsonText(value, 'adminSecretFile', code))),
  );
  const openAdministration =
    optionalMember(root, 'openAdministration') === undefined ? false : booleanMember(root, 'openAdministration', code);
  const keys = optional(root, 'jwks', (value) => {
    const member = asJsonObject(value, 'jwks', code);
    return {
      host: stringMember(member, 'host', code),
      port: integerMember(member, 'port', code),
      ...(tls === undefined ? {} : { tls }),
    };
  });
  const grpc = {
    address: stringMember(root, 'listen', code),
    ...(tls === undefined ? {} : { tls }),
    ...(adminSecret === undefined ? {} : { adminSecret }),
    openAdministration,
  };
  checkExposure(grpc);
  return {
    storagePath: at(stringMember(root, 'storage', code)),
    service: {
      ...(optionalMember(root, 'tpm') === undefined ? {} : { tpm: readTpm(objectMember(root, 'tpm', code), at) }),
      ...optional(root, 'snp', (value) => ({ snp: readSnpConfig(value, at) })),
      ...optional(root, 'cca', (value) => ({ cca: readCcaConfig(value, at) })),
      ...optional(root, 'csv', (value) => ({ csv: readHygonConfig(value, 'csv', at) })),
      ...optional(root, 'hygondcu', (value) => ({ hygondcu: readHygonConfig(value, 'hygondcu', at) })),
      ...optional(root, 'nvidia', (value) => ({ nvidia: readNvidiaConfig(value, at) })),
      ...optional(root, 'nvidiaDpu', (value) => ({ nvidiaDpu: readDpuConfig(value, at) })),
      ...optional(root, 'nitro', (value) => ({ nitro: readNitroConfig(value) })),
      ...(optionalMember(root, 'sample') === undefined ? {} : { sample: booleanMember(root, 'sample', code) }),
      ...(optionalMember(root, 'token') === undefined ? {} : { token: readToken(objectMember(root, 'token', code)) }),
    },
    grpc,
    ...(keys === undefined ? {} : { keys }),
  };
}

function optional<Value>(root: JsonObject, name: string, read: (value: JsonValue) => Value): Value | undefined {
  const value = optionalMember(root, name);
  return value === undefined ? undefined : read(value);
}

type Tls = NonNullable<GrpcServerOptions['tls']>;

function readTls(tls: JsonObject, at: (file: string) => string): Tls {
  refuseUnknown(tls, ['certificateFile', 'keyFile', 'clientAuthoritiesFile'], 'tls');
  const authorities = optionalMember(tls, 'clientAuthoritiesFile');
  return {
    certificate: readText(at(stringMember(tls, 'certificateFile', code))),
    key: readText(at(stringMember(tls, 'keyFile', code))),
    ...(authorities === undefined
      ? {}
      : { clientAuthorities: readText(at(asJsonText(authorities, 'clientAuthoritiesFile', code))) }),
  };
}

function readTpm(tpm: JsonObject, at: (file: string) => string): NonNullable<AttestationServiceConfig['tpm']> {
  refuseUnknown(tpm, ['roots', 'requireTrustedKey'], 'tpm');
  return { roots: readRoots(tpm, at), ...optionalFlag(tpm, 'requireTrustedKey') };
}

function readRoots(
  tpm: JsonObject,
  at: (file: string) => string,
): NonNullable<AttestationServiceConfig['tpm']>['roots'] {
  const roots = optionalMember(tpm, 'roots');
  if (!Array.isArray(roots)) throw new SealpodError(code, 'tpm.roots must be an array');
  return roots.map((value: JsonValue) => {
    const root = asJsonObject(value, 'tpm.roots[]', code);
    refuseUnknown(root, ['name', 'certificatesFile', 'simulated'], 'tpm.roots[]');
    return {
      name: stringMember(root, 'name', code),
      certificates: readText(at(stringMember(root, 'certificatesFile', code))),
      simulated: booleanMember(root, 'simulated', code),
    };
  });
}

function readToken(token: JsonObject): TokenConfig {
  const texts = ['issuer', 'developer', 'build', 'profile'] as const;
  refuseUnknown(token, [...texts, 'lifetimeSeconds'], 'token');
  const named = texts.flatMap((name) =>
    optionalMember(token, name) === undefined ? [] : [[name, stringMember(token, name, code)] as const],
  );
  const lifetimeSeconds =
    optionalMember(token, 'lifetimeSeconds') === undefined ? undefined : integerMember(token, 'lifetimeSeconds', code);
  if (lifetimeSeconds !== undefined && (lifetimeSeconds < 1 || lifetimeSeconds > 3600)) {
    throw new SealpodError(code, 'token.lifetimeSeconds is out of range', {
      expected: '1 to 3600',
      actual: `${lifetimeSeconds}`,
    });
  }
  return { ...Object.fromEntries(named), ...(lifetimeSeconds === undefined ? {} : { lifetimeSeconds }) };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SealpodError(code, `cannot read ${path}`, { cause });
  }
}

function readSecret(path: string): string {
  const text = readText(path).trim();
  if ((statSync(path).mode & 0o077) !== 0) {
    throw new SealpodError(code, `others can read ${path}`, { fix: `chmod 600 ${path}` });
  }
  return text;
}
