import { SealpodError } from '../errors.ts';
import { EventType } from './event-types.ts';

/** One digest of an event. */
export interface EventDigest {
  /** TPM_ALG_ID. */
  readonly algorithm: number;
  readonly digest: Buffer;
}

/** One event (TCG_PCR_EVENT2). */
export interface LogEvent {
  /** Position in the log; 0 is the event after the Spec ID event. */
  readonly position: number;
  /** PCR index, or measurement register index of a CCEL. */
  readonly register: number;
  readonly type: number;
  readonly digests: readonly EventDigest[];
  readonly data: Buffer;
}

/** A crypto-agile log. Parsed only: that it replays, and that its events are the expected ones, is for the verifier. */
export interface EventLog {
  /** TPM_ALG_ID → digest size, as the Spec ID event declares them. */
  readonly algorithms: ReadonlyMap<number, number>;
  readonly events: readonly LogEvent[];
}

export interface ParseEventLogOptions {
  /** Largest size in bytes; 1 MiB by default, the usual size of a CCEL table. */
  readonly maxBytes?: number;
  readonly maxEvents?: number;
  /** Largest data of one event, in bytes. */
  readonly maxEventBytes?: number;
  /**
   * The log lies in a padded table (CCEL): it ends at the first eight bytes of all 0xff or all 0x00. Otherwise every
   * byte must belong to an event.
   */
  readonly padded?: boolean;
  /** Accept a Spec ID event without its signature, as upstream's attestation-agent writes one for logs of its own. */
  readonly unsignedSpecId?: boolean;
}

/**
 * Parses a TCG2 crypto-agile log: the Spec ID event in TCG 1.2 layout, then events whose digest sizes it declares
 * (PC Client Platform Firmware Profile §10). Integers are little-endian.
 *
 * @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE
 */
export function parseEventLog(bytes: Uint8Array, options: ParseEventLogOptions = {}): EventLog {
  const { maxBytes = 1024 * 1024, maxEvents = 2048, maxEventBytes = 256 * 1024 } = options;
  if (bytes.length > maxBytes) {
    throw new SealpodError('REQUEST_TOO_LARGE', 'the event log is too large', {
      expected: `at most ${maxBytes} bytes`,
    });
  }
  const reader = new LogReader(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  const algorithms = parseSpecIdEvent(reader, options.unsignedSpecId ?? false);
  const events: LogEvent[] = [];
  while (options.padded ? !reader.atPadding() : reader.remaining > 0) {
    if (events.length >= maxEvents) throw reader.fail(`more than ${maxEvents} events`);
    events.push(parseEvent(reader, algorithms, events.length, maxEventBytes));
  }
  return { algorithms, events };
}

function parseSpecIdEvent(reader: LogReader, unsigned: boolean): Map<number, number> {
  reader.uint32(); // register: 0 in TPM logs, 0 or 1 in CCEL tables
  if (reader.uint32() !== EventType.EV_NO_ACTION) throw reader.fail('the first event is not EV_NO_ACTION');
  if (reader.bytes(20).some((byte) => byte !== 0)) throw reader.fail('the Spec ID event has a digest');
  const end = reader.uint32() + reader.position;
  const signature = reader.bytes(16);
  if (!signature.equals(specIdSignature) && !(unsigned && signature.every((byte) => byte === 0))) {
    throw reader.fail('no Spec ID Event03');
  }
  reader.bytes(8); // platform class, specification version, errata, size of UINTN
  const count = reader.uint32();
  if (count === 0 || count > 16) throw reader.fail(`${count} digest algorithms`);
  const algorithms = new Map<number, number>();
  for (let index = 0; index < count; index++) {
    const algorithm = reader.uint16();
    const size = reader.uint16();
    if (algorithms.has(algorithm) || size === 0 || size > 64) throw reader.fail('a bad digest algorithm');
    algorithms.set(algorithm, size);
  }
  reader.bytes(reader.uint8()); // vendor information
  if (reader.position !== end) throw reader.fail('the Spec ID event is of the wrong size');
  return algorithms;
}

function parseEvent(
  reader: LogReader,
  algorithms: ReadonlyMap<number, number>,
  position: number,
  maxEventBytes: number,
): LogEvent {
  const register = reader.uint32();
  const type = reader.uint32();
  const count = reader.uint32();
  if (count === 0 || count > algorithms.size) throw reader.fail(`event ${position} has ${count} digests`);
  const digests: EventDigest[] = [];
  for (let index = 0; index < count; index++) {
    const algorithm = reader.uint16();
    const size = algorithms.get(algorithm);
    if (size === undefined) throw reader.fail(`event ${position} has an undeclared digest algorithm`);
    if (digests.some((digest) => digest.algorithm === algorithm))
      throw reader.fail(`event ${position} repeats a digest`);
    digests.push({ algorithm, digest: reader.bytes(size) });
  }
  const length = reader.uint32();
  if (length > maxEventBytes) throw reader.fail(`event ${position} is too large`);
  return { position, register, type, digests, data: reader.bytes(length) };
}

const specIdSignature = Buffer.from('Spec ID Event03\0', 'ascii');

class LogReader {
  readonly #bytes: Buffer;
  position = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.position;
  }

  uint8(): number {
    return this.#bytes.readUInt8(this.#advance(1));
  }

  uint16(): number {
    return this.#bytes.readUInt16LE(this.#advance(2));
  }

  uint32(): number {
    return this.#bytes.readUInt32LE(this.#advance(4));
  }

  bytes(length: number): Buffer {
    const from = this.#advance(length);
    return this.#bytes.subarray(from, from + length);
  }

  /** Whether eight bytes of padding follow. A padded log without them is cut short, which the next read reports. */
  atPadding(): boolean {
    const next = this.#bytes.subarray(this.position, this.position + 8);
    return next.length === 8 && (next.every((byte) => byte === 0xff) || next.every((byte) => byte === 0));
  }

  fail(reason: string): SealpodError {
    return new SealpodError('EV_FORMAT', `malformed event log: ${reason}`, { actual: `at byte ${this.position}` });
  }

  #advance(length: number): number {
    const from = this.position;
    if (length > this.remaining) throw this.fail('cut short');
    this.position += length;
    return from;
  }
}
