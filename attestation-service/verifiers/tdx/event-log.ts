import type { TdReport } from '@sealpod/protocol/dcap';
import { asSealpodError } from '@sealpod/protocol/errors';
import { describeEvent, type EventLog, parseEventLog, replay } from '@sealpod/protocol/event-log';
import type { JsonObject } from '@sealpod/protocol/json';
import { Algorithm } from '@sealpod/protocol/tpm';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';

/** Measurement registers of a CCEL: 0 is MRTD, 1 to 4 are RTMR0 to RTMR3 (UEFI, confidential computing measurement). */
const firstRegister = 1;

/**
 * Where there is no CCEL table, the attestation agent puts a header of its own, without signature, before its events. What
 * a log says counts by its replay alone.
 *
 * @throws SealpodError EV_FORMAT, REQUEST_TOO_LARGE
 */
export function parseCcel(table: Buffer): EventLog {
  return parseEventLog(table, { padded: true, unsignedSpecId: true });
}

/** Every register is what its events make of it; one without events is zeros. */
export function checkRegisters({ rtmrs }: TdReport, log: EventLog): Verdict {
  const name = 'event log';
  try {
    const replayed = replay(log.events, Algorithm.sha384);
    const stray = [...replayed.keys()].find((register) => register < firstRegister || register > rtmrs.length);
    const wrong = rtmrs.findIndex(
      (value, index) => !value.equals(replayed.get(index + firstRegister) ?? Buffer.alloc(48)),
    );
    return check(name, wrong < 0 && stray === undefined, 'EV_EVENTLOG_REPLAY', {
      expected: wrong < 0 ? 'events of RTMR0 to RTMR3' : `RTMR${wrong} ${rtmrs[wrong]?.toString('hex')}`,
      actual:
        wrong < 0
          ? `an event of register ${stray}`
          : (replayed.get(wrong + firstRegister)?.toString('hex') ?? 'no event'),
    });
  } catch (thrown) {
    const { message } = asSealpodError(thrown);
    return check(name, false, 'EV_EVENTLOG_REPLAY', { expected: 'a log with digests of SHA-384', actual: message });
  }
}

export function eventClaims({ events }: EventLog): JsonObject {
  return { uefi_event_logs: events.map(describeEvent) };
}
