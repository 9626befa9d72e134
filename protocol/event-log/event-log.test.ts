import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { vectorPath } from '../testing/vectors.ts';
import { Algorithm, hashName } from '../tpm/index.ts';
import {
  aaelEvent,
  describeEvent,
  EventType,
  encodeAaelEntry,
  eventTypeName,
  parseAael,
  parseEventLog,
  parseTaggedEvent,
  parseUefiVariable,
  replay,
  utf16Text,
} from './index.ts';

const folder = vectorPath('eventlog');
const uint32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const uint16 = (value: number): Buffer => uint32(value).subarray(0, 2);

/** Spec ID event for SHA-1 and SHA-256. */
function specId(signature = 'Spec ID Event03\0'): Buffer {
  const event = Buffer.concat([
    Buffer.from(signature, 'latin1'),
    uint32(0),
    Buffer.from([0, 2, 0, 2]),
    uint32(2),
    uint16(Algorithm.sha1),
    uint16(20),
    uint16(Algorithm.sha256),
    uint16(32),
    Buffer.from([0]),
  ]);
  return Buffer.concat([uint32(0), uint32(EventType.EV_NO_ACTION), Buffer.alloc(20), uint32(event.length), event]);
}
function entry(register: number, type: number, data: Buffer): Buffer {
  const digest = (hash: string): Buffer => createHash(hash).update(data).digest();
  return Buffer.concat([
    uint32(register),
    uint32(type),
    uint32(2),
    uint16(Algorithm.sha1),
    digest('sha1'),
    uint16(Algorithm.sha256),
    digest('sha256'),
    uint32(data.length),
    data,
  ]);
}
const log = Buffer.concat([
  specId(),
  entry(0, EventType.EV_S_CRTM_VERSION, Buffer.from('v1')),
  entry(4, EventType.EV_SEPARATOR, Buffer.alloc(4)),
  entry(4, EventType.EV_EFI_ACTION, Buffer.from('Calling EFI Application from Boot Option')),
]);

describe('parseEventLog', () => {
  it('reads events and replays both banks', () => {
    const { events, algorithms } = parseEventLog(log);
    expect([...algorithms]).toEqual([
      [Algorithm.sha1, 20],
      [Algorithm.sha256, 32],
    ]);
    expect(events.map(({ register, type }) => [register, eventTypeName(type)])).toEqual([
      [0, 'EV_S_CRTM_VERSION'],
      [4, 'EV_SEPARATOR'],
      [4, 'EV_EFI_ACTION'],
    ]);
    for (const algorithm of [Algorithm.sha1, Algorithm.sha256]) {
      const hash = hashName(algorithm) ?? '';
      const step = (before: Buffer, data: string | Buffer): Buffer =>
        createHash(hash).update(before).update(createHash(hash).update(data).digest()).digest();
      const zeros = Buffer.alloc(algorithms.get(algorithm) ?? 0);
      const registers = replay(events, algorithm);
      expect([...registers.keys()]).toEqual([0, 4]);
      expect(registers.get(0)).toEqual(step(zeros, 'v1'));
      expect(registers.get(4)).toEqual(step(step(zeros, Buffer.alloc(4)), 'Calling EFI Application from Boot Option'));
    }
  });
  it('takes the startup locality into PCR 0', () => {
    const locality = entry(0, EventType.EV_NO_ACTION, Buffer.from('StartupLocality\0\x03', 'latin1'));
    const { events } = parseEventLog(
      Buffer.concat([specId(), locality, entry(0, EventType.EV_S_CRTM_VERSION, Buffer.from('v1'))]),
    );
    const initial = Buffer.alloc(32);
    initial[31] = 3;
    expect(replay(events, Algorithm.sha256).get(0)).toEqual(
      createHash('sha256').update(initial).update(createHash('sha256').update('v1').digest()).digest(),
    );
  });
  it('refuses every truncation, and bytes beyond the last event', () => {
    const ends = new Set([specId().length]);
    let end = specId().length;
    for (const { data } of parseEventLog(log).events) {
      end += 12 + 22 + 34 + 4 + data.length;
      ends.add(end);
    }
    for (let length = 0; length < log.length; length++) {
      if (!ends.has(length))
        expect(() => parseEventLog(log.subarray(0, length)), `${length} bytes`).toThrow('malformed event log');
    }
    expect(() => parseEventLog(Buffer.concat([log, Buffer.alloc(8)]))).toThrow('malformed event log');
  });
  it('ends a padded log at its padding, and not before', () => {
    for (const fill of [0, 0xff]) {
      expect(parseEventLog(Buffer.concat([log, Buffer.alloc(64, fill)]), { padded: true }).events).toHaveLength(3);
    }
    expect(() => parseEventLog(log, { padded: true })).toThrow('cut short');
  });
  it('wants the Spec ID signature unless told otherwise', () => {
    const unsigned = Buffer.concat([specId('\0'.repeat(16)), entry(0, EventType.EV_ACTION, Buffer.from('x'))]);
    expect(() => parseEventLog(unsigned)).toThrow('no Spec ID Event03');
    expect(parseEventLog(unsigned, { unsignedSpecId: true }).events).toHaveLength(1);
  });
  it('limits sizes and counts', () => {
    expect(() => parseEventLog(log, { maxBytes: 10 })).toThrow('too large');
    expect(() => parseEventLog(log, { maxEvents: 2 })).toThrow('more than 2 events');
    expect(() => parseEventLog(log, { maxEventBytes: 3 })).toThrow('too large');
  });
  it('never fails otherwise than with EV_FORMAT on arbitrary and mutated bytes', () => {
    const run = (bytes: Uint8Array): void => {
      try {
        parseEventLog(bytes);
      } catch (error) {
        expect(error).toMatchObject({ code: 'EV_FORMAT' });
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), run));
    fc.assert(
      fc.property(fc.nat({ max: log.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const mutated = Buffer.from(log);
        mutated[at] = (mutated[at] ?? 0) ^ flip;
        run(mutated);
      }),
    );
  });
});

describe('event data', () => {
  it('reads UEFI variables, tagged events and UTF-16 text, and refuses lengths that do not fit', () => {
    const variable = Buffer.concat([
      Buffer.alloc(16, 7),
      uint32(2),
      uint32(0),
      uint32(3),
      uint32(0),
      Buffer.from('PK', 'utf16le'),
      Buffer.from('abc'),
    ]);
    expect(parseUefiVariable(variable)).toEqual({ guid: Buffer.alloc(16, 7), name: 'PK', data: Buffer.from('abc') });
    expect(() => parseUefiVariable(variable.subarray(0, -1))).toThrow('malformed UEFI variable');
    expect(() => parseTaggedEvent(Buffer.concat([uint32(1), uint32(9), Buffer.from('abc')]))).toThrow(
      'malformed tagged event',
    );
    expect(utf16Text(Buffer.from('.linux\0', 'utf16le'))).toBe('.linux');
    expect(utf16Text(Buffer.from('.linux', 'utf16le'))).toBeUndefined();
  });
});

describe('attestation-agent events', () => {
  const event = { domain: 'domain', operation: 'operation', content: 'content' };
  it('is bit for bit the cross-checked vector', () => {
    expect(createHash('sha256').update(aaelEvent(event)).digest('hex')).toBe(
      '46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351',
    );
    expect(createHash('sha512').update(aaelEvent(event)).digest('hex')).toBe(
      'b708d222ca8bd44dfe6ba0c4ca2cbb72379276fba8091025217064be45a813e5d6124ccf073219edb617d1faf007d55061465bdf34b7437dbdc9a7405bd4e9c0',
    );
    expect(encodeAaelEntry(4, 'sha384', event).toString('hex')).toMatch(
      /^0400000006000000010000000c00dad5f0e226318ffa.*02200000004c45414118000000646f6d61696e206f7065726174696f6e20636f6e74656e74$/,
    );
    expect(parseAael(aaelEvent(event))).toEqual(event);
  });
  it('refuses what could not be read back', () => {
    expect(() => aaelEvent({ ...event, domain: 'a b' })).toThrow('malformed runtime event');
    expect(() => aaelEvent({ ...event, content: 'a\nb' })).toThrow('malformed runtime event');
    expect(parseAael(Buffer.from('short'))).toBeUndefined();
  });
});

describe.each(['CCEL_data', 'CCEL_data_ovmf', 'CCEL_data_grub', 'CCEL_AAEL_alibabacloud'])('vector %s', (name) => {
  it('is told byte for byte as upstream tells it', (context) => {
    if (!existsSync(`${folder}/${name}`)) context.skip(`no vectors at ${folder}`);
    const { events } = parseEventLog(readFileSync(`${folder}/${name}`), { padded: true });
    const told = JSON.stringify({ uefi_event_logs: events.map(describeEvent) }, null, 2);
    expect(told).toBe(readFileSync(`${folder}/${name}_out.json`, 'utf8').trimEnd());
  });
});

describe('events in SM3', () => {
  it('are told as upstream tells them (two events of its log of a Hygon machine)', () => {
    const told = (type: number, register: number, digest: string, event: string) => {
      const digests = [{ algorithm: Algorithm.sm3, digest: Buffer.from(digest, 'hex') }];
      return describeEvent({ position: 0, register, type, digests, data: Buffer.from(event, 'base64') });
    };
    const separator = 'afcc870fa20c507995499794371e8c25e3a7310fa72200c109379973ae236845';
    expect(told(EventType.EV_SEPARATOR, 1, separator, 'AAAAAA==')).toEqual({
      details: {},
      digest_matches_event: true,
      digests: [{ alg: 'SM3', digest: separator }],
      event: 'AAAAAA==',
      index: 1,
      type_name: 'EV_SEPARATOR',
    });
    const action = '0c45a5c3c304d73f1a9d73d4fe03190cf1861e89ba5b958752aba51c6fb5fc5a';
    const text = 'Calling EFI Application from Boot Option';
    expect(told(EventType.EV_EFI_ACTION, 2, action, Buffer.from(text).toString('base64'))).toMatchObject({
      details: { string: text },
      digest_matches_event: true,
    });
  });
});
