import { SealpodError } from './errors.ts';

/**
 * A resource of a key broker: `kbs[+<plugin>]://[<host[:port]>]/<segment>/…[?<query>]` (guest-components, resource_uri).
 * The host part is parsed and dropped: the broker's address comes from measured configuration, never from a URI.
 */
export interface ResourceUri {
  /** `resource` for plain `kbs:///`. */
  readonly plugin: string;
  /** Path below the plugin without a leading slash, e.g. `default/key/1`; not decoded. */
  readonly path: string;
  /** Text after `?`, where there is any. */
  readonly query?: string;
}

/** One segment of a resource name: repository, type or tag. */
const namePattern = /^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*$/;
const maxUriLength = 2048;

/** Name of a stored secret: exactly repository, type and tag. */
export interface ResourceName {
  readonly repository: string;
  readonly type: string;
  readonly tag: string;
}

/**
 * Parses a resource URI. Which names a plugin accepts is the plugin's rule, see {@link parseResourceName}.
 *
 * @throws SealpodError RES_NAME
 */
export function parseResourceUri(text: string): ResourceUri {
  if (text.length > maxUriLength) throw nameError(text, `is longer than ${maxUriLength} characters`);
  const match = /^kbs(?:\+([A-Za-z0-9_-]+))?:\/\/([^/?#]*)\/([^?#]+)(?:\?([^#]*))?$/.exec(text);
  if (match === null) throw nameError(text, 'is not of the form kbs:///repository/type/tag');
  const [, plugin = 'resource', , path = '', query] = match;
  // What an HTTP client or server would rewrite on the way would name another resource than the one a policy saw.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  if (/[\u0000-\u0020\u007f-\uffff\\]/.test(path + (query ?? '')))
    throw nameError(text, 'holds a character outside printable ASCII');
  if (path.split('/').some((segment) => segment === '.' || segment === '..'))
    throw nameError(text, 'holds a dot segment');
  return query === undefined ? { plugin, path } : { plugin, path, query };
}

/** Canonical text: `kbs:///a/b/c`, or `kbs+plugin:///…`. */
export function formatResourceUri(uri: ResourceUri): string {
  const scheme = uri.plugin === 'resource' ? 'kbs' : `kbs+${uri.plugin}`;
  return `${scheme}:///${uri.path}${uri.query === undefined ? '' : `?${uri.query}`}`;
}

/**
 * Path and query below a key broker's address, e.g. `/kbs/v0/resource/default/key/1`.
 *
 * @throws SealpodError RES_NAME where the plugin is `resource` and the path is no resource name
 */
export function resourceHttpPath(uri: ResourceUri): string {
  if (uri.plugin === 'resource') parseResourceName(uri.path);
  return `/kbs/v0/${uri.plugin}/${uri.path}${uri.query === undefined ? '' : `?${uri.query}`}`;
}

/**
 * Parses `repository/type/tag`: three segments, each letters, digits, `_`, `-` and, not first, `.`.
 *
 * @throws SealpodError RES_NAME
 */
export function parseResourceName(path: string): ResourceName {
  const [repository, type, tag, ...more] = path.split('/');
  if (repository === undefined || type === undefined || tag === undefined || more.length > 0) {
    throw nameError(path, 'has not three segments repository/type/tag');
  }
  for (const segment of [repository, type, tag]) {
    if (!namePattern.test(segment) || segment.length > 255)
      throw nameError(path, `has a bad segment ${JSON.stringify(segment.slice(0, 64))}`);
  }
  return { repository, type, tag };
}

function nameError(text: string, problem: string): SealpodError {
  return new SealpodError('RES_NAME', `resource name ${JSON.stringify(text.slice(0, 256))} ${problem}`);
}
