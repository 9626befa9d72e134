import { Kind } from '@sealpod/protocol/gen/containerd/snapshots_pb';
import { Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import type { Snapshot } from './store.ts';

type Predicate = (snapshot: Snapshot) => boolean;

const kindNames: Partial<Record<Kind, string>> = {
  [Kind.VIEW]: 'view',
  [Kind.ACTIVE]: 'active',
  [Kind.COMMITTED]: 'committed',
};

function unsupported(filter: string): TtrpcError {
  return new TtrpcError(Status.invalidArgument, `filter ${JSON.stringify(filter)} is not understood`);
}

function unquote(text: string): string {
  return text.startsWith('"') ? (JSON.parse(text) as string) : text;
}

function fieldOf(path: string, filter: string): (snapshot: Snapshot) => string | undefined {
  if (path === 'name') return (snapshot) => snapshot.name;
  if (path === 'parent') return (snapshot) => snapshot.parent;
  if (path === 'kind') return (snapshot) => kindNames[snapshot.kind];
  const label = /^labels\.(.+)$/.exec(path)?.[1];
  if (label === undefined) throw unsupported(filter);
  const key = unquote(label);
  return (snapshot) => snapshot.labels[key];
}

const term =
  /^(?<path>[a-z]+(?:\.(?:"(?:[^"\\]|\\.)*"|[\w./-]+))?)(?:(?<operator>==|!=|~=)(?<value>"(?:[^"\\]|\\.)*"|[^\s,"]*))?(?:,|$)/;

/**
 * A filter of containerd's syntax (`name==x`, `labels."a.b"==c`, presence; commas mean and).
 *
 * @throws TtrpcError invalid argument for what is not understood: a filter must never match too much.
 */
export function parseFilter(filter: string): Predicate {
  const predicates: Predicate[] = [];
  for (let rest = filter; rest !== ''; ) {
    const match = term.exec(rest);
    if (match?.groups === undefined) throw unsupported(filter);
    const { path = '', operator, value } = match.groups;
    const field = fieldOf(path, filter);
    if (operator === undefined || value === undefined) {
      predicates.push((snapshot) => (field(snapshot) ?? '') !== '');
    } else if (operator === '~=') {
      throw unsupported(filter);
    } else {
      const wanted = unquote(value);
      predicates.push((snapshot) => ((field(snapshot) ?? '') === wanted) === (operator === '=='));
    }
    rest = rest.slice(match[0].length);
  }
  return (snapshot) => predicates.every((predicate) => predicate(snapshot));
}

/** Any of several filters; none at all matches everything. */
export function parseFilters(filters: readonly string[]): Predicate {
  const predicates = filters.map(parseFilter);
  return (snapshot) => predicates.length === 0 || predicates.some((predicate) => predicate(snapshot));
}
