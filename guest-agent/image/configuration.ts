import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  optionalMember,
  parseJson,
  stringArrayMember,
} from '@sealpod/protocol/json';

/** What an image configuration says (OCI image-spec, config.md). */
export interface ImageConfiguration {
  readonly os: string;
  readonly architecture: string;
  /** Digests of the uncompressed layers, lowest first. */
  readonly diffIds: readonly string[];
  readonly environment: readonly string[];
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly workingDirectory: string;
  /** As written: `user`, `uid`, `uid:gid`, `user:group`. */
  readonly user: string;
  readonly document: JsonObject;
}

const code = 'IMG_FORMAT';
/** Largest configuration accepted. */
export const maxConfigurationBytes = 8 * 1024 * 1024;

/**
 * Parses an image configuration. Its digest is the caller's to check.
 *
 * @throws SealpodError IMG_FORMAT, REQUEST_TOO_LARGE
 */
export function parseImageConfiguration(bytes: Uint8Array): ImageConfiguration {
  const what = 'image configuration';
  const document = asJsonObject(
    parseJson(bytes, { maxSize: maxConfigurationBytes, maxDepth: 32, what, code }),
    what,
    code,
  );
  const rootfs = asJsonObject(optionalMember(document, 'rootfs'), 'rootfs', code);
  const config = asJsonObject(optionalMember(document, 'config') ?? {}, 'config', code);
  const diffIds = stringArrayMember(rootfs, 'diff_ids', code);
  if (!diffIds.every((digest) => /^sha256:[0-9a-f]{64}$/.test(digest))) {
    throw new SealpodError(code, 'a diff id of the image configuration is malformed');
  }
  const os = text(document, 'os') ?? '';
  if (os !== 'linux')
    throw new SealpodError(code, 'the image is not for Linux', { expected: 'linux', actual: os.slice(0, 32) });
  return {
    os,
    architecture: text(document, 'architecture') ?? '',
    diffIds,
    environment: list(config, 'Env'),
    entrypoint: list(config, 'Entrypoint'),
    command: list(config, 'Cmd'),
    workingDirectory: text(config, 'WorkingDir') ?? '',
    user: text(config, 'User') ?? '',
    document,
  };
}

function text(object: JsonObject, name: string): string | undefined {
  const value = optionalMember(object, name);
  return value === undefined || value === null ? undefined : asJsonText(value, name, code);
}

function list(object: JsonObject, name: string): readonly string[] {
  const value = optionalMember(object, name);
  return value === undefined || value === null ? [] : stringArrayMember(object, name, code);
}
