import type { AttestationService } from '@sealpod/attestation-service/service';
import type { RegoEngine } from '@sealpod/rego';
import type { Storage } from '@sealpod/storage';
import type { Logger } from 'pino';
import type { Authenticator } from './admin/authenticator.ts';
import type { KbsConfig } from './config.ts';
import type { TokenVerifier } from './rcar/token-verifier.ts';
import type { KbsMetrics } from './server/metrics.ts';

/** What the handlers of one key broker work with. */
export interface Parts {
  readonly config: KbsConfig;
  readonly storage: Storage;
  readonly attestation: AttestationService;
  readonly rego: Pick<RegoEngine, 'check' | 'evaluate'>;
  readonly tokens: TokenVerifier;
  readonly authenticator: Authenticator;
  readonly metrics: KbsMetrics;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}
