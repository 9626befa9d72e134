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
import { isDigest } from './digest.ts';
import { type ImageSignature, type SignedIdentity, signatureProblem } from './image-signature.ts';
import { formatReference, type ImageReference } from './reference.ts';

/** One requirement on an image; all of a scope's must hold. */
export type ImageRequirement =
  | { readonly type: 'reject' }
  | { readonly type: 'insecureAcceptAnything' }
  /** Ours: the manifest, or the index it was chosen from, has one of these digests. */
  | { readonly type: 'digest'; readonly digests: readonly string[] }
  /** Signed with a key, which stands here as PEM or is a resource of the key broker. */
  | {
      readonly type: 'sigstoreSigned';
      readonly key: { readonly pem: string } | { readonly uri: string };
      readonly identity: SignedIdentity;
    }
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

/** Where signatures and keys come from. */
export interface SignatureSource {
  /** The signatures of a manifest or index of this image. */
  signatures(digest: string): Promise<readonly ImageSignature[]>;
  /** A key of the key broker, PEM. */
  key(uri: string): Promise<string | Uint8Array>;
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
 * @param source without it a requirement of a signature does not hold
 * @throws SealpodError IMG_POLICY_DENY, and what `source` throws
 */
export async function requireAllowed(
  policy: ImagePolicy | undefined,
  image: ImageIdentity,
  source?: SignatureSource,
): Promise<void> {
  if (policy === undefined) throw denied(image, 'no image policy is set', 'set image_security_policy in initdata');
  const { scope, requirements } = selectRequirements(policy, image.reference);
  if (requirements.length === 0) throw denied(image, `${scope} has no requirements`);
  for (const requirement of requirements) {
    const problem =
      requirement.type === 'sigstoreSigned'
        ? await unsigned(requirement, image, source)
        : violation(requirement, image);
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

type SignatureRequirement = Extract<ImageRequirement, { readonly type: 'sigstoreSigned' }>;

async function unsigned(
  { key, identity }: SignatureRequirement,
  { reference, manifestDigest, indexDigest }: ImageIdentity,
  source: SignatureSource | undefined,
): Promise<string | undefined> {
  if (source === undefined) return 'signatures are not checked here';
  const digests = [
    manifestDigest,
    ...(indexDigest === undefined || indexDigest === manifestDigest ? [] : [indexDigest]),
  ];
  const pem = 'pem' in key ? key.pem : await source.key(key.uri);
  const found = await Promise.all(digests.map((digest) => source.signatures(digest)));
  return signatureProblem(found.flat(), pem, { reference, digests }, identity);
}

function violation(
  requirement: Exclude<ImageRequirement, SignatureRequirement>,
  image: ImageIdentity,
): string | undefined {
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
    case 'sigstoreSigned':
      return signatureRequirement(requirement) ?? { type: 'unsupported', name: type };
    default:
      return { type: 'unsupported', name: type.slice(0, 64) };
  }
}

/** Undefined for forms that are not supported: certificates of Fulcio, logs of Rekor, several keys, keys in files. */
function signatureRequirement(requirement: JsonObject): SignatureRequirement | undefined {
  if (Object.keys(requirement).some((name) => !['type', 'keyData', 'keyPath', 'signedIdentity'].includes(name)))
    return undefined;
  const [keyData, uri] = [optionalMember(requirement, 'keyData'), optionalMember(requirement, 'keyPath')];
  const identity = signedIdentity(optionalMember(requirement, 'signedIdentity'));
  if (identity === undefined || (keyData === undefined) === (uri === undefined)) return undefined;
  if (uri !== undefined) {
    const text = asJsonText(uri, 'keyPath', code);
    return text.startsWith('kbs:///') ? { type: 'sigstoreSigned', key: { uri: text }, identity } : undefined;
  }
  // The standard has base64 here, upstream's guest the PEM itself.
  const text = asJsonText(keyData, 'keyData', code);
  const pem = text.startsWith('-----BEGIN') ? text : Buffer.from(text, 'base64').toString('utf8');
  return pem.startsWith('-----BEGIN PUBLIC KEY-----') ? { type: 'sigstoreSigned', key: { pem }, identity } : undefined;
}

/** The repository is always compared: a signature for another name is no signature for this one. */
function signedIdentity(value: JsonValue | undefined): SignedIdentity | undefined {
  if (value === undefined) return { type: 'matchRepository' };
  const identity = asJsonObject(value, 'signedIdentity', code);
  const type = optionalMember(identity, 'type');
  if (type === 'matchRepository') return { type };
  const repository = optionalMember(identity, 'dockerRepository');
  return type === 'exactRepository' && typeof repository === 'string'
    ? { type, dockerRepository: repository }
    : undefined;
}

function refuseUnknown(object: JsonObject, known: readonly string[], what: string): void {
  const unknown = Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new SealpodError(code, `${what} has an unknown member ${JSON.stringify(unknown)}`);
}
