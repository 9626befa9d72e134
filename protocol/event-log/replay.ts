import { createHash } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { bankOf } from './bank.ts';
import { EventType } from './event-types.ts';
import type { LogEvent } from './parse.ts';

/**
 * Replays events into registers: each begins as zeros and takes H(register ‖ digest) for every event but EV_NO_ACTION.
 * A StartupLocality event (PFP §10.4.5.3) sets the last byte of PCR 0's first value.
 *
 * @param algorithm TPM_ALG_ID of the bank
 * @returns register → value, of the registers that an event extends
 * @throws SealpodError EV_EVENTLOG_REPLAY where an event has no digest of the bank; UNSUPPORTED for an unknown bank
 */
export function replay(events: readonly LogEvent[], algorithm: number): Map<number, Buffer> {
  const bank = bankOf(algorithm);
  if (bank === undefined)
    throw new SealpodError('UNSUPPORTED', 'unknown PCR bank', { actual: `0x${algorithm.toString(16)}` });
  const { hash, bytes } = bank;
  const registers = new Map<number, Buffer>();
  const initial = (register: number): Buffer => {
    const value = Buffer.alloc(bytes);
    if (register === 0) value[value.length - 1] = startupLocality(events);
    return value;
  };
  for (const event of events) {
    if (event.type === EventType.EV_NO_ACTION) continue;
    const digest = event.digests.find((candidate) => candidate.algorithm === algorithm)?.digest;
    if (digest === undefined) {
      throw new SealpodError('EV_EVENTLOG_REPLAY', `event ${event.position} has no ${hash} digest`);
    }
    const before = registers.get(event.register) ?? initial(event.register);
    registers.set(event.register, createHash(hash).update(before).update(digest).digest());
  }
  return registers;
}

function startupLocality(events: readonly LogEvent[]): number {
  const event = events.find(isStartupLocality);
  return event?.data.at(16) ?? 0;
}

/** Whether an event tells the locality of TPM2_Startup: 16 bytes of text, then the locality. */
export function isStartupLocality({ type, register, data }: LogEvent): boolean {
  return (
    type === EventType.EV_NO_ACTION &&
    register === 0 &&
    data.length === 17 &&
    data.subarray(0, 16).equals(startupLocalitySignature)
  );
}

const startupLocalitySignature = Buffer.from('StartupLocality\0', 'ascii');
