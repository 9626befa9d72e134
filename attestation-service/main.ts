import { parseArgs } from 'node:util';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import type { MainConfig } from './main-config.ts';
import type { Ports } from './start.ts';
import { isWorker, startWorkers, tellMain } from './workers.ts';

/**
 * `attestation-service/main.ts --config FILE`: exit 2 for wrong use, 1 where it cannot start, 0 after SIGTERM or SIGINT. With
 * `workers` in the configuration this process starts that many others and answers nothing itself.
 */
async function main(): Promise<void> {
  const { config } = parseArgs({ options: { config: { type: 'string' } } }).values;
  if (config === undefined) throw new SealpodError('USAGE', 'no configuration', { expected: '--config FILE' });
  // A main process that only watches over others need not load what they run.
  const { readMainConfig } = await import('./main-config.ts');
  const { ports, close } = await start(readMainConfig(config));
  if (isWorker()) tellMain({ ready: ports });
  else console.log(JSON.stringify({ message: 'attestation service is ready', ...ports }));
  let ending = false;
  const stop = (): void => {
    if (ending) return;
    ending = true;
    void close().finally(() => (isWorker() ? process.disconnect() : undefined));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

async function start(config: MainConfig): Promise<{ readonly ports: Ports; close(): Promise<void> }> {
  if (config.workers > 1 && !isWorker()) return startWorkers(config.workers);
  const { startAttestationService } = await import('./start.ts');
  const { close, ...ports } = await startAttestationService(config);
  return { ports, close };
}

main().catch((thrown: unknown) => {
  const wrongUse = thrown instanceof TypeError && 'code' in thrown && String(thrown.code).startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, wrongUse ? 'USAGE' : 'INTERNAL');
  console.error(
    `attestation-service: ${error.code}: ${error.message}${error.detail.actual === undefined ? '' : ` (${error.detail.actual})`}; ${fixOf(error)}`,
  );
  process.exitCode = error.code === 'USAGE' ? 2 : 1;
  if (isWorker()) {
    tellMain({ failed: { code: error.code, message: error.message } });
    process.disconnect();
  }
});
