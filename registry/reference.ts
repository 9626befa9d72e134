import { SealpodError } from '@sealpod/protocol/errors';
import { isDigest } from './digest.ts';

/** A normalised image reference: what to ask which registry for. */
export interface ImageReference {
  /** Host name with port where one was given, lower case, e.g. `registry.example:5000`. */
  readonly registry: string;
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: string;
}

const defaultRegistry = 'docker.io';
/** Where the default registry really answers. */
const defaultRegistryEndpoint = 'registry-1.docker.io';
const legacyDefaultRegistries: ReadonlySet<string> = new Set(['index.docker.io', defaultRegistryEndpoint]);

const maxReferenceLength = 1024;
const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const repositoryPattern = new RegExp(`^${component}(?:/${component})*$`);
const hostPattern =
  /^(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::[0-9]{1,5})?$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/**
 * Parses and normalises a reference by the rules of distribution/reference, `ParseDockerRef`: a first component without
 * `.`, `:` and other than `localhost` is part of the repository; the default registry's single names get `library/`;
 * a reference with neither tag nor digest means tag `latest`; with a digest the tag says nothing and is dropped.
 *
 * @throws SealpodError IMG_FORMAT
 */
export function parseReference(text: string): ImageReference {
  if (text.length > maxReferenceLength) throw malformed(text, `is longer than ${maxReferenceLength} characters`);
  const [named = '', digest, ...more] = text.split('@');
  if (more.length > 0 || (digest !== undefined && !isDigest(digest))) throw malformed(text, 'has a malformed digest');
  const { registry, remainder } = splitRegistry(named);
  const colon = remainder.lastIndexOf(':');
  const path = colon === -1 ? remainder : remainder.slice(0, colon);
  const tag = colon === -1 ? undefined : remainder.slice(colon + 1);
  if (tag !== undefined && !tagPattern.test(tag)) throw malformed(text, 'has a malformed tag');
  if (!hostPattern.test(registry)) throw malformed(text, 'has a malformed host');
  const repository = registry === defaultRegistry && !path.includes('/') ? `library/${path}` : path;
  if (!repositoryPattern.test(repository) || repository.length > 255)
    throw malformed(text, 'has a malformed repository');
  return digest === undefined ? { registry, repository, tag: tag ?? 'latest' } : { registry, repository, digest };
}

/** The full text of a reference, `registry/repository:tag` or `registry/repository@digest`. */
export function formatReference(reference: ImageReference): string {
  const name = `${reference.registry}/${reference.repository}`;
  if (reference.digest !== undefined) return `${name}@${reference.digest}`;
  return `${name}:${reference.tag ?? 'latest'}`;
}

/** Host and port that serve `registry`. */
export function registryEndpoint(registry: string): string {
  return registry === defaultRegistry ? defaultRegistryEndpoint : registry;
}

function splitRegistry(named: string): { readonly registry: string; readonly remainder: string } {
  const slash = named.indexOf('/');
  const first = slash === -1 ? '' : named.slice(0, slash);
  const isHost = first.includes('.') || first.includes(':') || first === 'localhost';
  if (slash === -1 || !isHost) return { registry: defaultRegistry, remainder: named };
  const host = first.toLowerCase();
  return { registry: legacyDefaultRegistries.has(host) ? defaultRegistry : host, remainder: named.slice(slash + 1) };
}

function malformed(text: string, problem: string): SealpodError {
  return new SealpodError('IMG_FORMAT', `image reference ${JSON.stringify(text.slice(0, 256))} ${problem}`, {
    fix: 'write it as host:port/repository:tag, in lower case',
  });
}
