import type { IncomingHttpHeaders } from 'node:http';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';

/** A request as the handlers see it, whatever framework received it. */
export interface Exchange {
  readonly method: string;
  /** Path segments, each decoded once. */
  readonly segments: readonly string[];
  /** Decoded query, the last of equal names. */
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  readonly remoteAddress: string;
  /** Reads the body once. Throws `REQUEST_TOO_LARGE` beyond `limit` bytes. */
  readonly body: (limit: number) => Promise<Buffer>;
}

/** What a handler answers. */
export interface Answer {
  readonly status: number;
  readonly correlationId: string;
  readonly contentType?: string;
  readonly body?: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  /** For log and metrics; absent for success. */
  readonly code?: ReasonCode;
  /** Name of the route for log and metrics, without anything the client chose. */
  readonly route: string;
}
