import { SealpodError } from '@sealpod/protocol/errors';
import { parseGuestLine } from '@sealpod/protocol/status';
import { describe, expect, it } from 'vitest';
import { createConsoleLog } from './console-log.ts';
import { tellStages } from './stages.ts';

function recorded() {
  const lines: string[] = [];
  const during = tellStages(createConsoleLog((line) => lines.push(line)));
  return { during, read: () => lines.map(parseGuestLine) };
}

describe('tellStages', () => {
  it('tells begin and end in lines that the host can read', async () => {
    const { during, read } = recorded();
    const subject = { container: 'main', image: 'registry.test/app@sha256:0' };
    const result = await during(
      'pulling',
      subject,
      async () => 'done',
      () => 'c-1',
    );
    expect(result).toBe('done');
    const stage = { kind: 'stage', stage: 'pulling', ...subject, begunAt: expect.any(Number) };
    expect(read()).toEqual([stage, { ...stage, durationMs: expect.any(Number), code: 'OK', correlationId: 'c-1' }]);
  });

  it('tells code, message and correlation id of a failure, and nothing that only an operator may know', async () => {
    const { during, read } = recorded();
    const refusal = new SealpodError('POLICY_DENY', 'denied', { correlationId: 'c-2', expected: 'secret rule' });
    await expect(during('attesting', {}, () => Promise.reject(refusal))).rejects.toBe(refusal);
    const [, end] = read();
    expect(end).toMatchObject({ code: 'POLICY_DENY', message: 'denied', correlationId: 'c-2' });
    expect(JSON.stringify(end)).not.toContain('secret rule');
  });
});
