import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonObject,
  type JsonValue,
  optionalMember,
  parseJson,
  stringArrayMember,
} from '@sealpod/protocol/json';
import { formatReference, type ImageReference, isDigest } from '@sealpod/registry';

/** One requirement on an image; all of a scope's must hold. */
export type ImageRequirement =
  | { readonly type: 'reject' }
  | { readonly type: 'insecureAcceptAnything' }
  /** Ours: the manifest, or the index it was chosen from, has one of these digests. */
  | { readonly type: 'digest'; readonly digests: readonly string[] }
  /** A requirement of containers-policy.json that is not supported: it never holds. */
  | { readonly type: 'unsupported'; readonly name: string };

/** An image policy: requirements by scope, and those of everything else. */
export interface ImagePolicy {
  readonly default: readonly ImageRequirement[];
  readonly scopes: ReadonlyMap<string, readonly ImageRequirement[]>;
}

/** The image that is to be judged. */
export interface ImageIdentity {
  /** As asked for, normalised; never what a mirror or rewriting rule made of it. */
  readonly reference: ImageReference;
  readonly manifestDigest: string;
  /** Where the reference named an index. */
  readonly indexDigest?: string;
}

const code = 'POLICY_INVALID';
const maxPolicyBytes = 1024 * 1024;
const maxRequirements = 1000;

/**
 * Parses a policy after containers-policy.json(5), transport `docker`. Members it does not know are refused, so that a
 * misspelt restriction does not become none.
 *
 * @throws SealpodError POLICY_INVALID
 */
export function parseImagePolicy(text: string | Uint8Array): ImagePolicy {
  const what = 'image policy';
  const document = asJsonObject(parseJson(text, { maxSize: maxPolicyBytes, maxDepth: 16, what, code }), what, code);
  refuseUnknown(document, ['default', 'transports'], what);
  const transports = asJsonObject(optionalMember(document, 'transports') ?? {}, 'transports', code);
  const docker = asJsonObject(optionalMember(transports, 'docker') ?? {}, 'transports.docker', code);
  return {
    default: parseRequirements(optionalMember(document, 'default'), 'default'),
    scopes: new Map(Object.entries(docker).map(([scope, list]) => [scope, parseRequirements(list, `scope ${scope}`)])),
  };
}

/**
 * Decides on an image. No policy refuses, and so does an empty list of requirements.
 *
 * @throws SealpodError IMG_POLICY_DENY
 */
export function requireAllowed(policy: ImagePolicy | undefined, image: ImageIdentity): void {
  if (policy === undefined) throw denied(image, 'no image policy is set', 'set image_security_policy in initdata');
  const { scope, requirements } = selectRequirements(policy, image.reference);
  if (requirements.length === 0) throw denied(image, `${scope} has no requirements`);
  for (const requirement of requirements) {
    const problem = violation(requirement, image);
    if (problem !== undefined) throw denied(image, `${scope}: ${problem}`);
  }
}

/** Scopes that apply to a reference, most specific first (containers-policy.json(5), "docker:"). */
export function scopesOf(reference: ImageReference): string[] {
  const { registry, repository } = reference;
  const segments = repository.split('/');
  const namespaces = segments.map((_, at) => `${registry}/${segments.slice(0, segments.length - at).join('/')}`);
  const labels = registry.replace(/:[0-9]+$/, '').split('.');
  const wildcards = labels.slice(1).map((_, at) => `*.${labels.slice(at + 1).join('.')}`);
  return [formatReference(reference), ...namespaces, registry, ...wildcards, ''];
}

function selectRequirements(
  policy: ImagePolicy,
  reference: ImageReference,
): { readonly scope: string; readonly requirements: readonly ImageRequirement[] } {
  for (const scope of scopesOf(reference)) {
    const requirements = policy.scopes.get(scope);
    if (requirements !== undefined) return { scope: `scope ${JSON.stringify(scope)}`, requirements };
  }
  return { scope: 'default', requirements: policy.default };
}

function violation(requirement: ImageRequirement, image: ImageIdentity): string | undefined {
  switch (requirement.type) {
    case 'insecureAcceptAnything':
      return undefined;
    case 'reject':
      return 'every image is rejected';
    case 'unsupported':
      return `requirement ${JSON.stringify(requirement.name)} is not supported`;
    case 'digest': {
      const known = [image.manifestDigest, image.indexDigest].some(
        (digest) => digest !== undefined && requirement.digests.includes(digest),
      );
      return known ? undefined : 'the digest is not among those allowed';
    }
  }
}

function denied(image: ImageIdentity, reason: string, fix?: string): SealpodError {
  return new SealpodError('IMG_POLICY_DENY', `Image policy rejected: Denied by policy: ${reason}`, {
    actual: `${formatReference(image.reference)} ${image.manifestDigest}`.trim(),
    source: 'image policy',
    ...(fix === undefined ? {} : { fix }),
  });
}

function parseRequirements(value: JsonValue | undefined, what: string): ImageRequirement[] {
  if (!Array.isArray(value)) throw new SealpodError(code, `${what} of the image policy must be a list`);
  if (value.length > maxRequirements) throw new SealpodError(code, `${what} has too many requirements`);
  const items: readonly JsonValue[] = value;
  return items.map((item) => parseRequirement(asJsonObject(item, what, code)));
}

function parseRequirement(requirement: JsonObject): ImageRequirement {
  const type = asJsonText(optionalMember(requirement, 'type'), 'type', code);
  switch (type) {
    case 'reject':
    case 'insecureAcceptAnything':
      refuseUnknown(requirement, ['type'], type);
      return { type };
    case 'digest': {
      refuseUnknown(requirement, ['type', 'digests'], type);
      const digests = stringArrayMember(requirement, 'digests', code);
      if (!digests.every(isDigest)) throw new SealpodError(code, 'a digest of the image policy is malformed');
      return { type, digests };
    }
    default:
      return { type: 'unsupported', name: type.slice(0, 64) };
  }
}

function refuseUnknown(object: JsonObject, known: readonly string[], what: string): void {
  const unknown = Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new SealpodError(code, `${what} has an unknown member ${JSON.stringify(unknown)}`);
}
