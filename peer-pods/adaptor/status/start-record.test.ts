import { parseGuestLine, type StageRecord } from '@sealpod/protocol/status';
import { describe, expect, it } from 'vitest';
import { StartRecord } from './start-record.ts';

const pod = { name: 'web', namespace: 'default', uid: 'u-1' };
const start = { pod, name: 'podvm-web-1', vcpus: 1, memoryMiB: 512 };
const booted = 100_000;
const booting = (): StartRecord => {
  const record = StartRecord.begin('s', start, booted - 20_000);
  record.begin('booting', undefined, booted - 15_000);
  return record;
};
const hear = (record: StartRecord, uptime: number, fields: object, now = booted + 60_000) => {
  const line = parseGuestLine(JSON.stringify({ time: 't', uptime, ...fields }));
  if (line === undefined) throw new Error('not a line of a start');
  record.splitBooting(now);
  return record.hear(line, now);
};
const served = (): StartRecord => {
  const record = booting();
  const init = parseGuestLine('sealpod: init after 6.0 s of the kernel');
  if (init) record.hear(init, booted);
  hear(record, 8000, { message: 'starting' }, booted);
  hear(record, 10_000, { message: 'serving' }, booted);
  record.end('booting', undefined, 'OK', booted);
  return record;
};
const find = (record: StartRecord, stage: string, part?: string): StageRecord | undefined =>
  record.status.stages.find((one) => one.stage === stage && one.part === part);

describe('StartRecord', () => {
  it('splits booting by what the console tells, on the clock of the host', () => {
    const record = served();
    expect(record.splitBooting(booted).map(({ part, durationMs }) => [part, durationMs])).toEqual([
      ['firmware', 5000],
      ['kernel', 6000],
      ['init', 2000],
      ['agent', 2000],
    ]);
    expect(find(record, 'booting')).toMatchObject({ durationMs: 15_000, code: 'OK' });
    expect(record.splitBooting(booted)).toEqual([]);
  });

  it('has no parts where the console tells none', () => {
    const record = booting();
    record.end('booting', undefined, 'OK', booted);
    expect(record.splitBooting(booted)).toEqual([]);
    expect(record.status.stages).toHaveLength(1);
  });

  it('puts the stages of the guest at their time, and keeps the correlation id', () => {
    const record = served();
    hear(record, 12_000, { message: 'stage', stage: 'pulling', container: 'main', image: 'i' });
    expect(find(record, 'pulling')).toEqual({ stage: 'pulling', container: 'main', image: 'i', startedAt: 102_000 });
    const attested = { message: 'stage', stage: 'attesting', ms: 900, code: 'OK', correlation: 'c-1' };
    expect(hear(record, 13_000, attested).ended).toEqual([
      { stage: 'attesting', durationMs: 900, code: 'OK', correlationId: 'c-1' },
    ]);
    hear(record, 15_000, { message: 'stage', stage: 'pulling', container: 'main', image: 'i', ms: 3000, code: 'OK' });
    expect(find(record, 'pulling')).toMatchObject({ startedAt: 102_000, durationMs: 3000, code: 'OK' });
    expect(find(record, 'attesting')).toMatchObject({ startedAt: 102_100, durationMs: 900 });
    expect(record.status.correlationId).toBe('c-1');
    expect(record.status.refusal).toBeUndefined();
  });

  it('counts a refusal that comes again, and begins anew with another one', () => {
    const record = served();
    const refused = { message: 'stage', stage: 'pulling', container: 'main', ms: 10, code: 'IMG_DIGEST', error: 'no' };
    expect(hear(record, 20_000, refused).refused).toBe(true);
    hear(record, 30_000, refused);
    const known = { code: 'IMG_DIGEST', message: 'no', stage: 'pulling', container: 'main' };
    expect(record.status.refusal).toEqual({ ...known, at: 120_000, count: 2 });
    const denied = { message: 'request refused by the agent policy', reason: 'commands' };
    hear(record, 31_000, { ...denied, request: 'ReadStreamRequest' });
    expect(record.status.refusal?.code).toBe('IMG_DIGEST');
    hear(record, 32_000, { ...denied, request: 'ExecProcessRequest' });
    expect(record.status.refusal).toMatchObject({
      code: 'AGENT_POLICY_DENY',
      message: 'ExecProcessRequest is blocked by policy: commands',
      count: 1,
    });
    hear(record, 40_000, refused);
    expect(record.status.refusals?.map(({ code, count }) => [code, count])).toEqual([
      ['AGENT_POLICY_DENY', 1],
      ['IMG_DIGEST', 3],
    ]);
  });

  it('keeps the stages of the VM and a bounded number of those of containers', () => {
    const record = served();
    record.splitBooting(booted);
    for (let run = 0; run < 300; run++) {
      hear(record, 20_000 + run, { message: 'stage', stage: 'starting', container: 'main' });
      hear(record, 20_001 + run, { message: 'stage', stage: 'starting', container: 'main', ms: 1, code: 'OK' });
    }
    const { stages } = record.status;
    expect(stages.filter(({ stage }) => stage === 'booting')).toHaveLength(5);
    expect(stages.filter(({ stage }) => stage === 'starting')).toHaveLength(100);
    expect(stages.at(-1)).toMatchObject({ startedAt: 110_299, durationMs: 1 });
  });

  it('goes on after a restart where it was', () => {
    const before = served();
    before.splitBooting(booted);
    hear(before, 12_000, { message: 'stage', stage: 'pulling', container: 'main' });
    const after = new StartRecord(JSON.parse(JSON.stringify(before.stored)));
    hear(after, 15_000, { message: 'stage', stage: 'pulling', container: 'main', ms: 3000, code: 'OK' });
    expect(find(after, 'pulling')).toMatchObject({ startedAt: 102_000, durationMs: 3000, code: 'OK' });
    expect(after.status.stages).toHaveLength(6);
  });
});
