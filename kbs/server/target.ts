/** A request target that can be decided on: split before it is decoded, and decoded once. */
export interface Target {
  readonly segments: readonly string[];
  readonly query: Readonly<Record<string, string>>;
}

/** What may stand in a request target (RFC 3986 plus what HTTP clients send unescaped); no space, `<`, `>`, `\`, control or non-ASCII. */
const targetPattern = /^[!$-;=?-[\]_a-z|~]*$/;

const noQuery: Readonly<Record<string, string>> = Object.freeze({});

function decodeSegment(segment: string): string | undefined {
  if (!segment.includes('%')) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    // Not UTF-8, or a stray `%`: no name contains that, so it is refused like every other bad name.
    return undefined;
  }
}

/** The path and query of a target in origin or absolute form. Undefined where it is malformed, also for a fragment. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } | undefined {
  if (!targetPattern.test(target)) return undefined;
  const local = /^https?:\/\/[^/?]*(\/.*)$/i.exec(target)?.[1] ?? target;
  if (!local.startsWith('/')) return undefined;
  const mark = local.indexOf('?');
  return mark < 0 ? { path: local, query: '' } : { path: local.slice(0, mark), query: local.slice(mark + 1) };
}

/**
 * Splits a path below a prefix into segments, then decodes each once. An encoded slash stays inside its segment, where
 * every name pattern refuses it; dot segments are not resolved. What cannot be decoded becomes `%`, which no name holds.
 */
export function parseTarget(path: string, query: string): Target {
  const segments = path.split('/').map((segment) => decodeSegment(segment) ?? '%');
  if (query === '') return { segments, query: noQuery };
  // Without prototype, so that no name a client sends means anything.
  const names: Record<string, string> = Object.create(null);
  for (const [name, value] of new URLSearchParams(query)) names[name] = value;
  return { segments, query: names };
}
