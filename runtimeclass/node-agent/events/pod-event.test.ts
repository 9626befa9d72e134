import type { SandboxStatus, StageRecord } from '@sealpod/protocol/status';
import { describe, expect, it } from 'vitest';
import { eventName, podEvents } from './pod-event.ts';

const image = { name: 'default', digest: 'sha256:ab', rootHash: 'cd' };
const at = 1_000_000;
const done = (stage: StageRecord['stage'], startedAt: number, durationMs: number, more: Partial<StageRecord> = {}) =>
  ({ stage, startedAt: at + startedAt, durationMs, code: 'OK', ...more }) as const;
const sandbox = (stages: readonly StageRecord[], more: Partial<SandboxStatus> = {}): SandboxStatus => ({
  sandboxId: 's-1',
  pod: { name: 'web', namespace: 'shop', uid: 'u-1' },
  state: 'running',
  createdAt: at,
  vm: { name: 'podvm-web', vcpus: 1, memoryMiB: 512, image },
  stages,
  ...more,
});
const booted = [
  done('network', 0, 100, { part: 'host' }),
  done('creating-vm', 100, 900),
  done('booting', 1000, 12_000),
  done('network', 13_000, 200, { part: 'guest' }),
  done('booting', 1000, 4000, { part: 'firmware' }),
  done('booting', 5000, 8000, { part: 'kernel' }),
];
const started = [
  ...booted,
  done('attesting', 14_000, 700, { correlationId: 'c-1' }),
  done('pulling', 13_500, 3000, { container: 'main', image: 'registry.test/app@sha256:00' }),
  done('starting', 17_000, 300, { container: 'main' }),
];

describe('podEvents', () => {
  it('tells each stage in its order, with its duration', () => {
    const events = podEvents(sandbox(started), at + 20_000);
    expect(events.map(({ reason, type, note }) => [reason, type, note])).toEqual([
      ['VMCreated', 'Normal', 'creating VM took 0.90 s: podvm-web, 1 vCPU, 512 MiB, image default sha256:ab'],
      ['VMBooted', 'Normal', 'booting took 12.0 s (firmware 4.00 s, kernel 8.00 s)'],
      ['VMNetworkReady', 'Normal', 'setting up the network of the VM took 0.30 s'],
      ['VMAttested', 'Normal', 'attesting took 0.70 s Correlation id c-1 (sealpod explain c-1).'],
      ['VMImagePulled', 'Normal', 'pulling image registry.test/app@sha256:00 in the VM for container main took 3.00 s'],
      ['VMContainerStarted', 'Normal', 'starting container main took 0.30 s'],
    ]);
    expect(events.map(({ times }) => times[0])).toEqual(events.map(({ times }) => times[0]).toSorted());
  });

  it('waits a moment for what booting consisted of, and tells it without where nobody says', () => {
    const unsplit = booted.filter(({ stage, part }) => stage === 'booting' && part === undefined);
    expect(podEvents(sandbox(unsplit), at + 14_000)).toEqual([]);
    expect(podEvents(sandbox(unsplit), at + 19_000).map(({ note }) => note)).toEqual(['booting took 12.0 s']);
  });

  it('says nothing of what is under way or failed', () => {
    const stages = [
      { stage: 'pulling', startedAt: at, container: 'main' },
      { ...done('starting', 0, 1), code: 'INTERNAL' },
    ] as const;
    expect(podEvents(sandbox(stages), at)).toEqual([]);
  });

  it('counts what a container does again under one name', () => {
    const again = [...started, done('starting', 30_000, 100, { container: 'main' })];
    const [first, second] = [podEvents(sandbox(started), at + 40_000), podEvents(sandbox(again), at + 40_000)];
    const name = (events: typeof first) => eventName(sandbox([]), events.at(-1) ?? neverEvent());
    expect(name(second)).toBe(name(first));
    expect(second.at(-1)).toMatchObject({ reason: 'VMContainerStarted', count: 2 });
  });

  it('tells a refusal with code, meaning, what to do, and correlation id, however long the message', () => {
    const refusal = {
      code: 'POLICY_DENY',
      message: `Failed\n to pull image ${'x'.repeat(2000)}`,
      at: at + 15_000,
      stage: 'pulling',
      container: 'main',
      correlationId: 'c-2',
      count: 3,
    } as const;
    const [event] = podEvents(sandbox([], { refusals: [refusal] }), at + 20_000);
    expect(event).toMatchObject({ type: 'Warning', reason: 'VMRefused', action: 'pulling', count: 3 });
    expect(event?.note).toMatch(
      /^POLICY_DENY \(container main\): a policy denies the request\. To do: see `sealpod explain`.* Correlation id c-2 \(sealpod explain c-2\)\. Failed to pull image x+…$/,
    );
    expect(Buffer.byteLength(event?.note ?? '')).toBeLessThanOrEqual(1024);
  });
});

function neverEvent(): never {
  throw new Error('no event');
}
