/**
 * The adaptor: `node peer-pods/adaptor/main.ts --config FILE`.
 *
 * Logs JSON lines to standard error. SIGTERM and SIGINT end it, and the VMs keep running for the next one. With
 * `--remove-all` it ends every VM that an earlier one left, and exits.
 * Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration.
 *
 * @module
 */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { addVolumesService } from '../volumes/volumes-service.ts';
import { Adaptor } from './adaptor.ts';
import { type AdaptorConfig, parseConfig } from './config.ts';
import { hypervisorServer } from './hypervisor-service.ts';
import { createLog, type Log } from './log.ts';
import { loadProvider } from './providers.ts';
import { AdaptorMetrics } from './status/metrics.ts';
import { serveStatus } from './status-server.ts';

const options = { config: { type: 'string' }, 'remove-all': { type: 'boolean', default: false } } as const;

async function readConfig(config: string | undefined): Promise<AdaptorConfig> {
  if (!config) throw new SealpodError('USAGE', 'usage: node peer-pods/adaptor/main.ts --config FILE [--remove-all]');
  const text = await readFile(config, 'utf8').catch((cause: unknown) => {
    throw new SealpodError('USAGE', `the configuration ${config} cannot be read`, { cause });
  });
  return parseConfig(text, config);
}

async function open(config: AdaptorConfig, log: Log, metrics = new AdaptorMetrics()): Promise<Adaptor> {
  const provider = await loadProvider(config.provider, {
    podsDirectory: config.podsDirectory,
    stateDirectory: config.stateDirectory,
    log: (level, message, fields = {}) => log[level]({ provider: config.provider.name, ...fields }, message),
  });
  return Adaptor.open(config, provider, log, metrics);
}

/** Ends every VM that this configuration's adaptors left, undoes what their journal says, and removes what is kept for others. */
async function removeAll(config: AdaptorConfig, log: Log): Promise<void> {
  const adaptor = await open(config, log);
  try {
    await adaptor.stopAll();
    await adaptor.removeKept();
  } finally {
    await adaptor.close();
  }
}

async function serve(config: AdaptorConfig, log: Log): Promise<void> {
  const metrics = new AdaptorMetrics();
  const adaptor = await open(config, log, metrics);
  metrics.observe(() => adaptor.starts.list());
  const closeStatus = await serveStatus(config.statusSocket, {
    starts: adaptor.starts,
    metrics,
    tpmAuthority: () => adaptor.tpmAuthority(),
  });
  const server = addVolumesService(hypervisorServer(adaptor, config), adaptor);
  await mkdir(dirname(config.socket), { recursive: true, mode: 0o700 });
  await server.listen(config.socket, { mode: 0o600 });
  log.info({ socket: config.socket, provider: config.provider.name }, 'serving');

  const { promise: asked, resolve } = Promise.withResolvers<string>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal));
  log.info({ signal: await asked }, 'ending; the pod VMs keep running');
  await server.close();
  await closeStatus();
  await adaptor.close();
}

let log = createLog('info');
try {
  const { values } = parseArgs({ options, strict: true });
  const config = await readConfig(values.config);
  log = createLog(config.logLevel);
  await (values['remove-all'] ? removeAll : serve)(config, log);
  process.exit(0);
} catch (thrown) {
  const isUsage = (thrown as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, isUsage ? 'USAGE' : 'INTERNAL');
  log.error(
    { code: error.code, fix: fixOf(error), cause: error.cause === undefined ? undefined : String(error.cause) },
    error.message,
  );
  process.exit(error.code === 'USAGE' ? 2 : 1);
}
