import { openStorage } from '@sealpod/storage';
import { serveGrpc } from './grpc/server.ts';
import { serveKeys } from './http/key-server.ts';
import { serveRest } from './http/rest-server.ts';
import { createAttestationService } from './local-service.ts';
import type { MainConfig } from './main-config.ts';

/** Where the fronts listen. */
export interface Ports {
  /** Port of gRPC. */
  readonly port: number;
  /** Port of the key server, where there is one. */
  readonly keysPort?: number;
  /** Port of the REST front, where there is one. */
  readonly restPort?: number;
}

/** A running program. */
export interface RunningAttestationService extends Ports {
  close(): Promise<void>;
}

/**
 * Starts storage, service and servers in this process; what was started is closed again where a later part fails.
 *
 * @throws SealpodError STORAGE, USAGE, NETWORK
 */
export async function startAttestationService(config: Omit<MainConfig, 'workers'>): Promise<RunningAttestationService> {
  const opened: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const step of opened.splice(0).reverse()) await step();
  };
  try {
    const storage = await openStorage({ path: config.storagePath });
    opened.push(() => storage.close());
    const service = await createAttestationService(config.service, { storage });
    opened.push(() => service.close());
    const started = async <Front extends { close(): Promise<void> }>(front: Promise<Front>): Promise<Front> => {
      const running = await front;
      opened.push(() => running.close());
      return running;
    };
    const { port } = await started(serveGrpc(service, config.grpc));
    const rest = config.rest === undefined ? undefined : await started(serveRest(service, config.rest));
    const keys = config.keys === undefined ? undefined : await started(serveKeys(service, config.keys));
    return {
      port,
      ...(keys === undefined ? {} : { keysPort: keys.port }),
      ...(rest === undefined ? {} : { restPort: rest.port }),
      close,
    };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}
