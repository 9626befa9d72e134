import { createHash } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { Algorithm } from '../tpm/index.ts';
import { parseTaggedEvent } from './event-data.ts';
import { EventType } from './event-types.ts';

/** Tag of an attestation-agent event ("LEAA" in memory order). */
export const aaelTag = 0x4141_454c;

/** What a workload or the guest agent measured at run time. */
export interface AaelEvent {
  readonly domain: string;
  readonly operation: string;
  readonly content: string;
}

/**
 * The data of an attestation-agent event: tag, length, `<domain> <operation> <content>`. Its digest is the hash of all
 * of it.
 * @throws SealpodError REQUEST_FORMAT for a new line anywhere, or a space in domain or operation
 */
export function aaelEvent({ domain, operation, content }: AaelEvent): Buffer {
  if (/[\s]/.test(domain + operation) || domain === '' || operation === '' || content.includes('\n')) {
    throw new SealpodError('REQUEST_FORMAT', 'malformed runtime event', {
      expected: 'domain and operation without white space, content without new line',
    });
  }
  const text = Buffer.from(`${domain} ${operation} ${content}`);
  const header = Buffer.alloc(8);
  header.writeUInt32LE(aaelTag, 0);
  header.writeUInt32LE(text.length, 4);
  return Buffer.concat([header, text]);
}

/** A complete TCG2 log entry of one digest for an attestation-agent event. */
export function encodeAaelEntry(register: number, hash: 'sha256' | 'sha384', event: AaelEvent): Buffer {
  const data = aaelEvent(event);
  const digest = createHash(hash).update(data).digest();
  const head = Buffer.alloc(14);
  head.writeUInt32LE(register, 0);
  head.writeUInt32LE(EventType.EV_EVENT_TAG, 4);
  head.writeUInt32LE(1, 8);
  head.writeUInt16LE(hash === 'sha256' ? Algorithm.sha256 : Algorithm.sha384, 12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(data.length);
  return Buffer.concat([head, digest, length, data]);
}

/** Reads the data of an EV_EVENT_TAG event as an attestation-agent event; undefined where it is another. */
export function parseAael(data: Buffer): AaelEvent | undefined {
  if (data.length < 8 || data.readUInt32LE(0) !== aaelTag) return undefined;
  const text = parseTaggedEvent(data).data.toString('utf8');
  const match = /^(\S+) (\S+) (.*)$/s.exec(text);
  if (match === null) return undefined;
  const [, domain = '', operation = '', content = ''] = match;
  return { domain, operation, content };
}
