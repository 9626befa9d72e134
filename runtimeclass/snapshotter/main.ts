import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { type SnapshotterConfiguration, serveSnapshotter } from './server.ts';

/** Reads the configuration file. @throws SealpodError REQUEST_FORMAT for anything but absolute paths. */
function readConfiguration(path: string): SnapshotterConfiguration {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', `${path}: cannot be read as JSON: ${String(cause)}`, { cause });
  }
  const { socket, root, metricsSocket, ...unknown } = (parsed ?? {}) as Record<string, unknown>;
  const absolute = (value: unknown): value is string => typeof value === 'string' && value.startsWith('/');
  const optional = metricsSocket === undefined || absolute(metricsSocket);
  if (!absolute(socket) || !absolute(root) || !optional || Object.keys(unknown).length > 0) {
    throw new SealpodError(
      'REQUEST_FORMAT',
      `${path}: expected {"socket": <absolute path>, "root": <absolute path>, "metricsSocket"?: <absolute path>}`,
    );
  }
  return { socket, root, ...(absolute(metricsSocket) ? { metricsSocket } : {}) };
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { config: { type: 'string' } } });
  if (values.config === undefined) throw new SealpodError('USAGE', 'usage: snapshotter --config <file>');
  const stop = await serveSnapshotter(readConfiguration(values.config));
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      void stop().then(() => process.exit(0));
    });
  }
  console.log('snapshotter: ready');
}

try {
  await main();
} catch (thrown) {
  const error = asSealpodError(thrown);
  console.error(`snapshotter: ${error.code}: ${error.message}`);
  process.exit(error.code === 'USAGE' ? 2 : 1);
}
