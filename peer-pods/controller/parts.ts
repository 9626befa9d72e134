import type { Log } from '../adaptor/log.ts';
import type { ControllerConfig } from './config.ts';
import type { ObjectClient } from './kubernetes/client.ts';

/** What every reconciler works with. */
export interface Parts {
  readonly client: ObjectClient;
  readonly config: ControllerConfig;
  readonly log: Log;
  readonly now: () => Date;
  /** Where key brokers are asked, in the place of their Services; for a controller outside of the cluster. */
  readonly keyBrokerUrl?: (namespace: string, name: string) => string | undefined;
}

/** Longest time until a resource is looked at again that is not as it should be. */
export const soonMs = 5_000;
