import type { ChannelIdentity } from '@sealpod/protocol/agent-channel';
import type { Provider } from '../providers/provider.ts';
import type { Journal } from './journal.ts';
import type { Log } from './log.ts';
import type { StartRecords } from './status/start-records.ts';

/** What all sandboxes of an adaptor share. */
export interface SandboxDependencies {
  readonly journal: Journal;
  readonly provider: Provider;
  readonly log: Log;
  readonly startTimeoutMs: number;
  /** Whose the sandboxes are. */
  readonly adaptor: string;
  /** By this guests know the adaptor on the agent channel. */
  readonly channelKey: ChannelIdentity;
  readonly starts: StartRecords;
}
