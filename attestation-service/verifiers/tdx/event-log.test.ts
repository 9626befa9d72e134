import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import { EventType, encodeAaelEntry } from '@sealpod/protocol/event-log';
import { Algorithm } from '@sealpod/protocol/tpm';
import { failures } from '@sealpod/protocol/verdict';
import { beforeAll, describe, expect, it } from 'vitest';
import type { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { mintQuote, TestIntel } from '../dcap/testing/mint.ts';
import { tdxVerifier } from './index.ts';

let intel: TestIntel;
beforeAll(async () => {
  intel = await TestIntel.create();
});

const uint16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
};
const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

/** Of a firmware with digests of SHA-384 alone. */
function header(signature: Buffer): Buffer {
  const event = Buffer.concat([
    signature,
    uint32(0),
    Buffer.from([0, 2, 0, 2]),
    uint32(1),
    uint16(Algorithm.sha384),
    uint16(48),
    Buffer.alloc(1),
  ]);
  return Buffer.concat([uint32(1), uint32(EventType.EV_NO_ACTION), Buffer.alloc(20), uint32(event.length), event]);
}
const firmwareHeader = header(Buffer.from('Spec ID Event03\0', 'latin1'));
/** What the attestation agent writes where there is no CCEL: no signature, SHA-384 and SHA-256. */
const agentHeader = Buffer.from(
  `${'00000000'}03000000${'00'.repeat(20)}25000000${'00'.repeat(24)}020000000c003000120020${'0000'}`,
  'hex',
);
const padding = Buffer.alloc(64, 0xff);

interface Entry {
  readonly register: number;
  readonly bytes: Buffer;
  readonly digest: Buffer;
}

function event(register: number, type: number, data: Buffer): Entry {
  const digest = createHash('sha384').update(data).digest();
  const head = [uint32(register), uint32(type), uint32(1), uint16(Algorithm.sha384)];
  return { register, digest, bytes: Buffer.concat([...head, digest, uint32(data.length), data]) };
}

function agentEvent(content: string): Entry {
  const bytes = encodeAaelEntry(4, 'sha384', { domain: 'example.org', operation: 'Load', content });
  return { register: 4, bytes, digest: bytes.subarray(14, 62) };
}

/** RTMR0 to RTMR3 of a TD in which these events happened. */
function registersOf(entries: readonly Entry[]): Record<string, Buffer> {
  const values = Array.from({ length: 4 }, () => Buffer.alloc(48));
  for (const { register, digest } of entries)
    values[register - 1] = createHash('sha384')
      .update(values[register - 1] ?? Buffer.alloc(0))
      .update(digest)
      .digest();
  return Object.fromEntries(values.map((value, index) => [`rtmr${index}`, value]));
}

const happened: readonly Entry[] = [
  event(1, EventType.EV_EFI_ACTION, Buffer.from('firmware')),
  event(2, EventType.EV_EFI_ACTION, Buffer.from('boot loader')),
  event(3, EventType.EV_EFI_ACTION, Buffer.from('kernel')),
  agentEvent('{"image":"a"}'),
  agentEvent('plain'),
];

const reportData = Buffer.alloc(48, 7);
const none = {
  sources: [],
  ...Object.fromEntries(
    ['tcbInfo', 'qeIdentity', 'pckRevocationList', 'rootRevocationList'].map((name) => [
      name,
      async () => ({ problem: new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'none') }),
    ]),
  ),
} as unknown as IntelCollateral;

/** What fails of the log; the rest of the quote is tested elsewhere. */
async function verified(log: Buffer, registers = registersOf(happened)) {
  const verifier = tdxVerifier({ root: intel.root, collateral: none, acceptExpiredCollateral: false });
  const quote = mintQuote(intel, 'tdx-4', {
    td: { reportData: Buffer.concat([reportData, Buffer.alloc(16)]), ...registers },
  });
  const evidence = { quote: quote.toString('base64'), cc_eventlog: log.toString('base64') };
  const now = new Date('2026-06-01T00:00:00Z');
  try {
    const { verdict, claims } = await verifier.verify(evidence, { reportData, trustedAttestationKeys: [], now });
    const found = failures(verdict).filter(({ code }) => code !== 'EV_COLLATERAL_UNAVAILABLE');
    return { claims, refusals: found.map(({ check, code }) => `${code} ${check}`) };
  } catch (thrown) {
    if (thrown instanceof SealpodError) return { claims: {}, refusals: [`thrown ${thrown.code}`] };
    throw thrown;
  }
}

const logOf = (entries: readonly Entry[], head = firmwareHeader): Buffer =>
  Buffer.concat([head, ...entries.map(({ bytes }) => bytes), padding]);

describe('the event log of a TD', () => {
  it('is told with the events of the agent, where every register is what its events make of it', async () => {
    const { claims, refusals } = await verified(logOf(happened));
    expect(refusals).toEqual([]);
    const events = claims['uefi_event_logs'] as { details: unknown; index: number; digest_matches_event: boolean }[];
    expect(events.map(({ index }) => index)).toEqual([1, 2, 3, 4, 4]);
    expect(events.every((one) => one.digest_matches_event)).toBe(true);
    expect(events[3]?.details).toEqual({
      data: { domain: 'example.org', operation: 'Load', content: { image: 'a' } },
      string: 'example.org Load {"image":"a"}',
      unicode_name: 'AAEL',
    });
  });

  it('may be of the agent alone, under the header that it writes where there is no table of the firmware', async () => {
    const own = happened.filter(({ register }) => register === 4);
    expect(agentHeader).toHaveLength(69);
    const { claims, refusals } = await verified(logOf(own, agentHeader), registersOf(own));
    expect(refusals).toEqual([]);
    expect(claims['uefi_event_logs']).toHaveLength(2);
    // Firmware that measured, and of which nothing is told.
    expect((await verified(logOf(own, agentHeader))).refusals).toEqual(['EV_EVENTLOG_REPLAY event log']);
  });

  const replayed = 'EV_EVENTLOG_REPLAY event log';
  const without = (index: number): Entry[] => happened.filter((_, at) => at !== index);
  const changed = (index: number, at: number): Buffer => {
    const bytes = Buffer.from(happened[index]?.bytes ?? Buffer.alloc(0));
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return logOf(happened.map((entry, position) => (position === index ? { ...entry, bytes } : entry)));
  };
  it.each<[string, () => Buffer, string]>([
    ['an event of the firmware left out', () => logOf(without(0)), replayed],
    ['an event of the kernel left out', () => logOf(without(2)), replayed],
    ['an event of the agent left out', () => logOf(without(3)), replayed],
    ['the last event left out', () => logOf(without(4)), replayed],
    ['no event at all', () => logOf([]), replayed],
    ['an event twice', () => logOf([...happened, ...happened.slice(4)]), replayed],
    ['an event that nobody measured', () => logOf([...happened, agentEvent('forged')]), replayed],
    ['events in another order', () => logOf([...without(3), ...happened.slice(3, 4)]), replayed],
    ['a digest changed', () => changed(3, 20), replayed],
    ['the register of an event changed', () => changed(0, 0), replayed],
    ['an event of register 0, which no quote has', () => logOf([...happened, event(0, 7, Buffer.from('x'))]), replayed],
    ['an event of register 5', () => logOf([...happened, event(5, 7, Buffer.from('x'))]), replayed],
    ['the number of digests changed', () => changed(0, 8), 'thrown EV_FORMAT'],
    ['another algorithm of a digest', () => changed(0, 12), 'thrown EV_FORMAT'],
    ['the last event cut short', () => logOf(happened).subarray(0, -padding.length - 3), 'thrown EV_FORMAT'],
    ['no header', () => Buffer.concat([...happened.map(({ bytes }) => bytes), padding]), 'thrown EV_FORMAT'],
  ])('G-20: %s is refused', async (_name, log, expected) => {
    expect((await verified(log())).refusals).toEqual([expected]);
  });

  it('G-20: data of an event that its digest does not cover are told as such', async () => {
    const { claims, refusals } = await verified(changed(3, 80));
    expect(refusals).toEqual([]);
    const events = claims['uefi_event_logs'] as { digest_matches_event: boolean }[];
    expect(events.map((one) => one.digest_matches_event)).toEqual([true, true, true, false, true]);
  });
});
