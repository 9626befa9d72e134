import { findCredentials } from '@sealpod/registry';
import type { RegistryAccess } from '../image/source.ts';
import { readBytes } from './context.ts';

/** Flags and meaning of the option that names a file of registry credentials. */
export const authFileOption = ['--auth-file <file>', 'registry credentials (auth.json)'] as const;

/**
 * How a command speaks to registries.
 *
 * @param plainHttpHosts `host[:port]` of registries without TLS
 * @param authFile an auth.json, as podman, skopeo and docker keep it
 * @throws SealpodError USAGE where the file cannot be read
 */
export function registryAccess(plainHttpHosts: readonly string[], authFile: string | undefined): RegistryAccess {
  const hosts = { plainHttpHosts: new Set(plainHttpHosts) };
  if (authFile === undefined) return hosts;
  const credentials = readBytes(authFile);
  return { ...hosts, credentials: (reference) => findCredentials(credentials, reference) };
}
