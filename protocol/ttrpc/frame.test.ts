import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeHeader, type Frame, FrameDecoder, maxMessageBytes } from './frame.ts';

const encode = (frame: { streamId: number; type: number; flags: number; payload: Uint8Array }) =>
  Buffer.concat([encodeHeader(frame, frame.payload.length), frame.payload]);

/** Splits at the given positions, in any order and with repetitions (empty chunks). */
function split(bytes: Buffer, cuts: number[]): Buffer[] {
  const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

const anyFrame = fc.record({
  streamId: fc.integer({ min: 0, max: 0xffffffff }),
  type: fc.integer({ min: 0, max: 255 }),
  flags: fc.integer({ min: 0, max: 255 }),
  payload: fc.uint8Array({ maxLength: 200 }),
});

describe('frames', () => {
  it('have the documented header', () => {
    expect(encodeHeader({ streamId: 0x01020305, type: 1, flags: 2 }, 0x10203).toString('hex')).toBe(
      '00010203010203050102',
    );
  });

  it('come out as they went in, however the bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 6 }), fc.array(fc.nat(), { maxLength: 40 }), (frames, cuts) => {
        const decoder = new FrameDecoder();
        const out: Frame[] = [];
        for (const chunk of split(Buffer.concat(frames.map(encode)), cuts)) out.push(...decoder.push(chunk));
        expect(
          out.map(({ payload, ...header }) => ({ ...header, payload: Buffer.from(payload ?? []).toString('hex') })),
        ).toEqual(
          frames.map((frame) => ({
            ...frame,
            length: frame.payload.length,
            payload: Buffer.from(frame.payload).toString('hex'),
          })),
        );
      }),
    );
  });

  it('beyond the limit are skipped without memory, and the next one is read', () => {
    fc.assert(
      fc.property(
        anyFrame,
        fc.integer({ min: 11, max: 90 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        (next, length, cuts) => {
          const decoder = new FrameDecoder(10);
          const small = { ...next, payload: next.payload.slice(0, 10) };
          const bytes = Buffer.concat([encode({ ...next, payload: new Uint8Array(length) }), encode(small)]);
          const out = split(bytes, cuts).flatMap((chunk) => [...decoder.push(chunk)]);
          expect(out).toHaveLength(2);
          expect(out[0]).toMatchObject({ streamId: next.streamId, length, payload: undefined });
          expect(out[1]?.length).toBe(small.payload.length);
        },
      ),
    );
  });

  it('of exactly 4 MiB pass, one byte more does not', () => {
    const decoder = new FrameDecoder();
    const header = { streamId: 1, type: 1, flags: 0 };
    const [exact] = decoder.push(encode({ ...header, payload: new Uint8Array(maxMessageBytes) }));
    expect(exact?.payload).toHaveLength(4_194_304);
    const [beyond] = decoder.push(encode({ ...header, payload: new Uint8Array(maxMessageBytes + 1) }));
    expect(beyond).toMatchObject({ length: 4_194_305, payload: undefined });
  });
});
