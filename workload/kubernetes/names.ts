import type { ObjectMeta, PodSpec } from './types.ts';

/** A workload as far as it names its pods. */
export interface PodOwner {
  readonly kind: string;
  readonly metadata: ObjectMeta;
}

const random = '[a-z0-9]{5}';
/** Names that Kubernetes makes are cut to 58 characters before the random part is put behind them. */
const longestBase = 58;
const maxNamePatternLength = 253;

/** Text that a regular expression of the policy engine matches literally. */
export function literal(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|\-#&~]/g, '\\$&');
}

/** A regular expression for the names of the pods that a workload makes. */
export function podNamePattern({ kind, metadata }: PodOwner): string {
  const { name, generateName } = metadata;
  if (name === undefined) return `^${literal((generateName ?? '').slice(0, longestBase))}${random}$`;
  const middle = middleOf(kind);
  if (middle === '') return `^${literal(name)}$`;
  // Where a long name may have been cut, all that is left of it is certain.
  if (name.length + 12 > longestBase)
    return `^${literal(name.slice(0, longestBase - 12))}[a-z0-9.-]{1,${maxNamePatternLength}}$`;
  return `^${literal(name)}${middle}$`;
}

function middleOf(kind: string): string {
  switch (kind) {
    case 'Deployment':
      return `-[a-z0-9]{1,10}-${random}`;
    case 'StatefulSet':
      return '-[0-9]{1,10}';
    case 'CronJob':
      return `-[0-9]{1,10}(-[0-9]{1,10})?-${random}`;
    case 'Job':
      return `(-[0-9]{1,10})?-${random}`;
    case 'Pod':
      return '';
    default:
      return `-${random}`;
  }
}

/** A regular expression for the host name of the pods that a workload makes. */
export function hostnamePattern(owner: PodOwner, spec: PodSpec): string {
  if (spec.setHostnameAsFQDN === true) return '^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$';
  if (spec.hostname !== undefined) return `^${literal(spec.hostname)}$`;
  // An indexed job names its hosts by job and index.
  const name = owner.metadata.name;
  if (name !== undefined && (owner.kind === 'Job' || owner.kind === 'CronJob')) {
    return `(${podNamePattern(owner)})|^${literal(name)}(-[0-9]{1,10}){1,2}$`;
  }
  return podNamePattern(owner);
}
