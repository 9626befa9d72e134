import { readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  optionalMember,
  parseJson,
  stringArrayMember,
} from '@sealpod/protocol/json';
import {
  findCredentials,
  formatReference,
  hostPlatform,
  type ImageReference,
  parseManifest,
  parseReference,
  RegistryClient,
  selectPlatform,
} from '@sealpod/registry';

/** An image as a pod names it, and what it brings along. */
export interface WorkloadImage {
  /** `registry/repository@sha256:…` of the image manifest (not of an index). */
  readonly reference: string;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  /** `NAME=value` */
  readonly environment: readonly string[];
  readonly workingDirectory: string;
  /** As in the image configuration: user, or user:group; empty where it says nothing. */
  readonly user: string;
}

/** Finds out what an image reference means now. */
export type ImageResolver = (reference: string) => Promise<WorkloadImage>;

export interface RegistryAccess {
  readonly plainHttpRegistries?: readonly string[];
  /** An auth.json with credentials. */
  readonly authFile?: string;
}

const code = 'IMG_FORMAT';
const maxConfigBytes = 4 << 20;

/**
 * A resolver that asks the registry, once an image: manifest (chosen by the platform of this machine) and configuration,
 * no layer. Content is checked against its digest.
 *
 * @throws SealpodError IMG_REGISTRY, IMG_AUTH, IMG_FORMAT, IMG_DIGEST
 */
export function registryImages(access: RegistryAccess = {}): ImageResolver {
  const asked = new Map<string, Promise<WorkloadImage>>();
  const auth = access.authFile === undefined ? undefined : readFileSync(access.authFile);
  return (text) => {
    const reference = parseReference(text);
    const key = formatReference(reference);
    const answer = asked.get(key) ?? resolve(reference, access, auth);
    asked.set(key, answer);
    return answer;
  };
}

async function resolve(
  reference: ImageReference,
  access: RegistryAccess,
  auth: Buffer | undefined,
): Promise<WorkloadImage> {
  const { repository, registry } = reference;
  const client = new RegistryClient({
    registry,
    plainHttpHosts: new Set(access.plainHttpRegistries),
    credentials: auth === undefined ? undefined : findCredentials(auth, reference),
  });
  const fetch = async (of: string) => {
    const { bytes, mediaType, digest } = await client.fetchManifest(repository, of);
    return { parsed: parseManifest(bytes, mediaType), digest };
  };
  let { parsed, digest } = await fetch(reference.digest ?? reference.tag ?? 'latest');
  if (parsed.kind === 'index') ({ parsed, digest } = await fetch(selectPlatform(parsed, hostPlatform()).digest));
  if (parsed.kind === 'index') throw new SealpodError(code, 'the index names another index', { actual: digest });
  const config = await client.fetchBlob(repository, parsed.config, maxConfigBytes);
  return { reference: formatReference({ registry, repository, digest }), ...parseImageConfig(config) };
}

/** What an image configuration (OCI image-spec, config.md) says of the process. Not verified: that the program exists. */
export function parseImageConfig(bytes: Uint8Array): Omit<WorkloadImage, 'reference'> {
  const what = 'image configuration';
  const document = asJsonObject(parseJson(bytes, { maxSize: maxConfigBytes, what, code }), what, code);
  const config = asJsonObject(optionalMember(document, 'config') ?? {}, 'config', code);
  return {
    entrypoint: texts(config, 'Entrypoint'),
    command: texts(config, 'Cmd'),
    environment: texts(config, 'Env'),
    workingDirectory: asJsonText(optionalMember(config, 'WorkingDir') ?? '', 'WorkingDir', code),
    user: asJsonText(optionalMember(config, 'User') ?? '', 'User', code),
  };
}

function texts(config: JsonObject, name: string): readonly string[] {
  const value = optionalMember(config, name);
  return value === undefined || value === null ? [] : stringArrayMember(config, name, code);
}
