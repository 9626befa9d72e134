import { statSync } from 'node:fs';
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
  stringArrayMember,
  stringMember,
} from '@sealpod/protocol/json';
import { checkExposure, type FrontOptions, type FrontTls } from './access.ts';
import type { AttestationServiceConfig, TokenConfig } from './config.ts';
import { defaultIssuer } from './config.ts';
import {
  optionalFlag,
  readConfiguredText,
  refuseUnknownMembers as refuseUnknown,
} from './endorsements/config-members.ts';
import type { KeyServerOptions } from './http/key-server.ts';
import type { RestServerOptions } from './http/rest-server.ts';
import { readReferenceValuesConfig } from './reference-values/config.ts';
import { readVerifiersConfig, verifierMembers } from './verifiers/config.ts';

/** Configuration of the service as a program. */
export interface MainConfig {
  readonly storagePath: string;
  readonly service: AttestationServiceConfig;
  readonly grpc: FrontOptions;
  readonly keys?: KeyServerOptions;
  readonly rest?: RestServerOptions;
  /** Processes that answer; one is the program itself. */
  readonly workers: number;
}

const code = 'USAGE';

/**
 * Reads a configuration file (JSON). Paths are relative to the file. Members:
 *
 * - `storage` path of the database
 * - `listen` `host:port` of gRPC; `jwks` `{host, port}` of the key server, optional
 * - `rest` `{listen, allowedOrigins?, maxBodyBytes?, publicUrl?}` of the REST front, optional
 * - `workers` how many processes answer, 1 by default; one for each processor uses the whole machine
 * - `tls` `{certificateFile, keyFile, clientAuthoritiesFile?}`, required beyond loopback
 * - `adminSecretFile` a file that only its owner can read; or `openAdministration: true` on loopback
 * - `tpm` `{roots: [{name, certificatesFile, simulated}], requireTrustedKey?}`, other TEEs as `readVerifiersConfig` has them,
 *   `sample` boolean
 * - `referenceValues` `{signers?, requiredSignatures?, approvals?, acceptUnsigned?}`, optional
 * - `token` `{issuer?, developer?, build?, profile?, audience?, lifetimeSeconds?, verbose?, rotateKeyAfterSeconds?}`
 *
 * @throws SealpodError USAGE naming the member
 */
export function readMainConfig(path: string): MainConfig {
  const root = asJsonObject(
    parseJson(readConfiguredText(path), { what: `configuration ${path}`, code }),
    'configuration',
    code,
  );
  refuseUnknown(
    root,
    [
      'storage',
      'listen',
      'rest',
      'workers',
      'jwks',
      'tls',
      'adminSecretFile',
      'openAdministration',
      'tpm',
      ...verifierMembers,
      'sample',
      'token',
      'referenceValues',
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
  const service = readServiceConfig(root, at);
  const issuer = service.token?.issuer ?? defaultIssuer;
  const rest = optional(root, 'rest', (value) => ({ ...grpc, ...readRest(asJsonObject(value, 'rest', code)), issuer }));
  if (rest !== undefined) checkExposure(rest);
  const workers = readWorkers(root);
  return {
    storagePath: at(stringMember(root, 'storage', code)),
    // Processes are what runs at once; a thread each for policies is enough then.
    service: workers === 1 ? service : { ...service, rego: { workers: 1, ...service.rego } },
    workers,
    ...(rest === undefined ? {} : { rest }),
    grpc,
    ...(keys === undefined ? {} : { keys }),
  };
}

/**
 * Reads the members that say which TEEs are verified, with what, and whose reference values are believed. Others are left
 * to the caller.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readServiceConfig(root: JsonObject, at: (path: string) => string): AttestationServiceConfig {
  return {
    ...(optionalMember(root, 'tpm') === undefined ? {} : { tpm: readTpm(objectMember(root, 'tpm', code), at) }),
    ...readVerifiersConfig((name) => optionalMember(root, name), at),
    ...(optionalMember(root, 'sample') === undefined ? {} : { sample: booleanMember(root, 'sample', code) }),
    ...optional(root, 'referenceValues', (value) => ({
      referenceValues: readReferenceValuesConfig(value, at, readConfiguredText),
    })),
    ...(optionalMember(root, 'token') === undefined ? {} : { token: readToken(objectMember(root, 'token', code)) }),
  };
}

function optional<Value>(root: JsonObject, name: string, read: (value: JsonValue) => Value): Value | undefined {
  const value = optionalMember(root, name);
  return value === undefined ? undefined : read(value);
}

function readTls(tls: JsonObject, at: (file: string) => string): FrontTls {
  refuseUnknown(tls, ['certificateFile', 'keyFile', 'clientAuthoritiesFile'], 'tls');
  const authorities = optionalMember(tls, 'clientAuthoritiesFile');
  return {
    certificate: readConfiguredText(at(stringMember(tls, 'certificateFile', code))),
    key: readConfiguredText(at(stringMember(tls, 'keyFile', code))),
    ...(authorities === undefined
      ? {}
      : { clientAuthorities: readConfiguredText(at(asJsonText(authorities, 'clientAuthoritiesFile', code))) }),
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
      certificates: readConfiguredText(at(stringMember(root, 'certificatesFile', code))),
      simulated: booleanMember(root, 'simulated', code),
    };
  });
}

function readRest(rest: JsonObject): Omit<RestServerOptions, 'issuer'> {
  refuseUnknown(rest, ['listen', 'allowedOrigins', 'maxBodyBytes', 'publicUrl'], 'rest');
  const given = (name: string): boolean => optionalMember(rest, name) !== undefined;
  return {
    address: stringMember(rest, 'listen', code),
    ...(given('allowedOrigins') ? { allowedOrigins: stringArrayMember(rest, 'allowedOrigins', code) } : {}),
    ...(given('maxBodyBytes') ? { maxBodyBytes: inRange(rest, 'maxBodyBytes', 1024, 64 * 1024 * 1024) } : {}),
    ...(given('publicUrl') ? { publicUrl: stringMember(rest, 'publicUrl', code) } : {}),
  };
}

function readWorkers(root: JsonObject): number {
  return optionalMember(root, 'workers') === undefined ? 1 : inRange(root, 'workers', 1, 256);
}

function inRange(object: JsonObject, name: string, least: number, most: number): number {
  const value = integerMember(object, name, code);
  if (value >= least && value <= most) return value;
  throw new SealpodError(code, `${name} is out of range`, { expected: `${least} to ${most}`, actual: `${value}` });
}

function readToken(token: JsonObject): TokenConfig {
  const texts = ['issuer', 'developer', 'build', 'profile', 'audience'] as const;
  refuseUnknown(token, [...texts, 'lifetimeSeconds', 'verbose', 'rotateKeyAfterSeconds'], 'token');
  const named = texts.flatMap((name) =>
    optionalMember(token, name) === undefined ? [] : [[name, stringMember(token, name, code)] as const],
  );
  const given = (name: string): boolean => optionalMember(token, name) !== undefined;
  return {
    ...Object.fromEntries(named),
    ...(given('lifetimeSeconds') ? { lifetimeSeconds: inRange(token, 'lifetimeSeconds', 1, 3600) } : {}),
    ...(given('rotateKeyAfterSeconds')
      ? { rotateKeyAfterSeconds: inRange(token, 'rotateKeyAfterSeconds', 3600, 10 * 365 * 86_400) }
      : {}),
    ...optionalFlag(token, 'verbose'),
  };
}

function readSecret(path: string): string {
  const text = readConfiguredText(path).trim();
  if ((statSync(path).mode & 0o077) !== 0) {
    throw new SealpodError(code, `others can read ${path}`, { fix: `chmod 600 ${path}` });
  }
  return text;
}
