import type { Parts } from '../parts.ts';
import type { Answer } from '../server/exchange.ts';
import type { Administrator } from './authenticator.ts';

/** A request to the administration, from somebody who may make it. */
export interface AdminRequest {
  readonly parts: Parts;
  readonly administrator: Administrator;
  readonly correlationId: string;
  readonly remoteAddress: string;
  /** Decoded once; a name that holds a slash is one parameter. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
  readonly body: (limit: number) => Promise<Buffer>;
}

export type AdminHandler = (request: AdminRequest) => Promise<Answer>;
