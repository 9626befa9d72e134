import { parseArgs } from 'node:util';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { openStorage } from '@sealpod/storage';
import { serveGrpc } from './grpc/server.ts';
import { serveKeys } from './http/key-server.ts';
import { createAttestationService } from './local-service.ts';
import { type MainConfig, readMainConfig } from './main-config.ts';

/** A running program. */
export interface RunningAttestationService {
  /** Port of gRPC. */
  readonly port: number;
  /** Port of the key server, where there is one. */
  readonly keysPort?: number;
  close(): Promise<void>;
}

/** Starts storage, service and servers; what was started is closed again where a later part fails. */
export async function startAttestationService(config: MainConfig): Promise<RunningAttestationService> {
  const opened: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const step of opened.splice(0).reverse()) await step();
  };
  try {
    const storage = await openStorage({ path: config.storagePath });
    opened.push(() => storage.close());
    const service = await createAttestationService(config.service, { storage });
    opened.push(() => service.close());
    const grpc = await serveGrpc(service, config.grpc);
    opened.push(() => grpc.close());
    if (config.keys === undefined) return { port: grpc.port, close };
    const keys = await serveKeys(service, config.keys);
    opened.push(() => keys.close());
    return { port: grpc.port, keysPort: keys.port, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}

/** `attestation-service/main.ts --config FILE`: exit 2 for wrong use, 1 where it cannot start, 0 after SIGTERM or SIGINT. */
async function main(): Promise<void> {
  const { config } = parseArgs({ options: { config: { type: 'string' } } }).values;
  if (config === undefined) throw new SealpodError('USAGE', 'no configuration', { expected: '--config FILE' });
  const running = await startAttestationService(readMainConfig(config));
  const ports =
    running.keysPort === undefined ? { port: running.port } : { port: running.port, keysPort: running.keysPort };
  console.log(JSON.stringify({ message: 'attestation service is ready', ...ports }));
  const stop = (): void => void running.close();
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

if (import.meta.main) {
  main().catch((thrown: unknown) => {
    const wrongUse =
      thrown instanceof TypeError && 'code' in thrown && String(thrown.code).startsWith('ERR_PARSE_ARGS');
    const error = asSealpodError(thrown, wrongUse ? 'USAGE' : 'INTERNAL');
    console.error(
      `attestation-service: ${error.code}: ${error.message}${error.detail.actual === undefined ? '' : ` (${error.detail.actual})`}; ${error.fix}`,
    );
    process.exitCode = error.code === 'USAGE' ? 2 : 1;
  });
}
