import { createHash } from 'node:crypto';
import type { LogEntry, Operations } from './storage.ts';

/** The hash of a record: SHA-256 over length-prefixed previous hash, stream, sequence, time, key and value. */
export function chainHash(previous: string, stream: string, entry: Omit<LogEntry, 'hash'>): string {
  const parts = [previous, stream, String(entry.sequence), String(entry.at), entry.key ?? '', entry.value];
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:`).update(part);
  return hash.digest('hex');
}

/** What `checkLogChain` found: how many records, and the first one that does not follow from the one before. */
export interface ChainCheck {
  readonly records: number;
  readonly brokenAt?: number;
  /** Hash of the last record; kept elsewhere it shows a later truncation. */
  readonly head: string;
}

/** Reads a whole stream and recomputes its chain of hashes. Truncation at the end shows only against a kept `head`. */
export async function checkLogChain(storage: Operations, stream: string): Promise<ChainCheck> {
  let previous = '';
  let records = 0;
  let after = 0;
  for (;;) {
    const page = await storage.read(stream, { after, limit: 1000 });
    for (const entry of page) {
      if (chainHash(previous, stream, entry) !== entry.hash) {
        return { records, brokenAt: entry.sequence, head: previous };
      }
      previous = entry.hash;
      after = entry.sequence;
      records += 1;
    }
    if (page.length === 0) return { records, head: previous };
  }
}
