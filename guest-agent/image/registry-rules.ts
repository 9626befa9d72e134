import { SealpodError } from '@sealpod/protocol/errors';
import { formatReference, type ImageReference, parseReference } from '@sealpod/registry';

/** `[[image.registry_config.registry]]` of initdata: a subset of containers-registries.conf(5). */
export interface RegistryRule {
  /** `host[:port][/namespace…]` or `*.domain`; `location` where absent. */
  readonly prefix?: string;
  /** What the prefix is replaced by; the prefix itself where absent. */
  readonly location?: string;
  /** Speak plain HTTP to `location`. */
  readonly insecure?: boolean;
  readonly blocked?: boolean;
  /** Tried in order before `location`. */
  readonly mirrors?: readonly { readonly location: string; readonly insecure?: boolean }[];
}

/** Where to ask for an image. */
export interface RegistryEndpoint {
  readonly reference: ImageReference;
  readonly plainHttp: boolean;
}

/**
 * Finds where to ask for an image: mirrors first, then the location. The longest matching prefix decides. Unlike
 * upstream, a prefix matches only from the start of the reference, so that no rule applies to a name that merely
 * contains its prefix.
 *
 * @throws SealpodError IMG_REGISTRY where the image is blocked
 */
export function endpointsFor(reference: ImageReference, rules: readonly RegistryRule[]): RegistryEndpoint[] {
  const full = formatReference(reference);
  const rule = rules
    .filter((candidate) => matches(prefixOf(candidate), full))
    .toSorted((left, right) => prefixOf(right).length - prefixOf(left).length)[0];
  if (rule === undefined) return [{ reference, plainHttp: false }];
  if (rule.blocked === true) {
    throw new SealpodError('IMG_REGISTRY', `Image ${full} is blocked by registry rule.`);
  }
  const matched = matchedText(prefixOf(rule), reference);
  const rewrite = (location: string): ImageReference => parseReference(location + full.slice(matched.length));
  const mirrors = (rule.mirrors ?? []).map((mirror) => ({
    reference: rewrite(mirror.location),
    plainHttp: mirror.insecure === true,
  }));
  const own = rule.location === undefined ? reference : rewrite(rule.location);
  return [...mirrors, { reference: own, plainHttp: rule.insecure === true }];
}

function prefixOf(rule: RegistryRule): string {
  const prefix = rule.prefix === undefined || rule.prefix === '' ? rule.location : rule.prefix;
  if (prefix === undefined || prefix === '') {
    throw new SealpodError('INITDATA_SCHEMA', 'a registry rule has neither prefix nor location');
  }
  return prefix;
}

function matches(prefix: string, full: string): boolean {
  if (prefix.startsWith('*.')) {
    const host = full.slice(0, full.indexOf('/')).replace(/:[0-9]+$/, '');
    return host.endsWith(prefix.slice(1));
  }
  return full.startsWith(prefix) && [undefined, ':', '/', '@'].includes(full[prefix.length]);
}

/** The part of the reference that a location replaces: all of the host for a wildcard. */
function matchedText(prefix: string, reference: ImageReference): string {
  return prefix.startsWith('*.') ? reference.registry : prefix;
}
