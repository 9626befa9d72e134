import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';

/** Where one development environment keeps its files. All of it belongs to this environment alone. */
export interface Layout {
  /** Everything that survives a restart: keys, databases, images. 0700. */
  readonly home: string;
  /** Sockets and other things of one run, on a short path because a socket path ends at 107 bytes. */
  readonly run: string;
  /** Builds keyed by their content; may be shared and deleted at any time. */
  readonly cache: string;
  /** A short name unique to this home, for kernel objects: bridge, network namespaces. */
  readonly tag: string;
  readonly stateFile: string;
  readonly logs: string;
}

/** The layout for `home` (default `/var/lib/sealpod/development`, environment `SEALPOD_HOME`). */
export function layoutOf(home: string | undefined, environment: NodeJS.ProcessEnv = process.env): Layout {
  const directory = resolve(home ?? environment['SEALPOD_HOME'] ?? '/var/lib/sealpod/development');
  const tag = createHash('sha256').update(directory).digest('hex').slice(0, 6);
  return {
    home: directory,
    run: `/run/sealpod/${tag}`,
    cache: environment['SEALPOD_CACHE'] ?? '/var/cache/sealpod',
    tag,
    stateFile: join(directory, 'state.json'),
    logs: join(directory, 'logs'),
  };
}
