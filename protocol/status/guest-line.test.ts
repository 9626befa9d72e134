import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseGuestLine } from './guest-line.ts';

const line = (fields: object): string => JSON.stringify({ time: '2026-01-01T00:00:00.000Z', uptime: 5000, ...fields });

describe('parseGuestLine', () => {
  it('reads the milestones of the boot', () => {
    expect(parseGuestLine('sealpod: init after 3.21 s of the kernel\r')).toEqual({
      kind: 'milestone',
      name: 'init',
      at: 3210,
    });
    expect(parseGuestLine(line({ message: 'starting' }))).toEqual({ kind: 'milestone', name: 'agent', at: 5000 });
    expect(parseGuestLine(line({ message: 'serving' }))).toEqual({ kind: 'milestone', name: 'serving', at: 5000 });
  });

  it('reads a stage behind what the kernel has left in the line', () => {
    const stage = line({ message: 'stage', stage: 'pulling', ms: 1200, code: 'OK', container: 'main' });
    expect(parseGuestLine(`[    4.2] random: ${stage}`)).toEqual({
      kind: 'stage',
      stage: 'pulling',
      begunAt: 3800,
      durationMs: 1200,
      code: 'OK',
      container: 'main',
    });
  });

  it('drops what has not the form of a code, a stage or a correlation id', () => {
    expect(parseGuestLine(line({ message: 'stage', stage: 'mining' }))).toBeUndefined();
    expect(parseGuestLine(line({ message: 'stage', stage: 'attesting', code: 'FINE', correlation: 'a b' }))).toEqual({
      kind: 'stage',
      stage: 'attesting',
      begunAt: 5000,
    });
  });

  it('keeps text to one printable line of bounded length', () => {
    const denied = parseGuestLine(
      line({
        message: 'request refused by the agent policy',
        request: 'ExecProcessRequest',
        reason: `a\n${'b'.repeat(5000)}`,
      }),
    );
    expect(denied).toMatchObject({ kind: 'denial', request: 'ExecProcessRequest' });
    const { reason } = denied as { reason: string };
    expect(reason).toMatch(/^a b+$/);
    expect(reason).toHaveLength(1024);
  });

  it('never throws, whatever the console holds', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json().map((json) => `{"time":${json}`),
        ),
        (text) => {
          parseGuestLine(text);
        },
      ),
    );
    fc.assert(
      fc.property(fc.object(), (fields) => {
        parseGuestLine(line({ message: 'stage', stage: 'starting', ...fields }));
      }),
    );
  });
});
