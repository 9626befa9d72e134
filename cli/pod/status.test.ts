import type { Decision } from '@sealpod/kbs/audit';
import type { StageRecord } from '@sealpod/protocol/status';
import { expect, it, vi } from 'vitest';
import { tellPodStatus, totalOf, verdictOf } from './status.ts';

const decision = (kind: Decision['kind'], outcome: Decision['outcome'], more: Partial<Decision> = {}): Decision => ({
  correlationId: 'c-1',
  time: '2026-01-01T00:00:00Z',
  kind,
  outcome,
  subject: {},
  ...more,
});
const stages: readonly StageRecord[] = [
  { stage: 'network', part: 'host', startedAt: 1000, durationMs: 300, code: 'OK' },
  { stage: 'network', part: 'guest', startedAt: 9000, durationMs: 200, code: 'OK' },
  { stage: 'booting', startedAt: 2000, durationMs: 7000, code: 'OK' },
  { stage: 'booting', part: 'kernel', startedAt: 3000, durationMs: 6000, code: 'OK' },
  { stage: 'pulling', container: 'a', startedAt: 9500, durationMs: 1000, code: 'OK' },
  { stage: 'pulling', container: 'b', startedAt: 10_500, durationMs: 2000, code: 'IMG_DIGEST' },
  { stage: 'starting', container: 'a', startedAt: 11_000, durationMs: 500, code: 'OK' },
];
const start = {
  sandboxId: 's-1',
  pod: { name: 'web', namespace: 'shop', uid: 'u-1' },
  state: 'running',
  createdAt: 1000,
  vm: {
    name: 'podvm-web',
    vcpus: 1,
    memoryMiB: 512,
    image: { name: 'default', digest: `sha256:${'a'.repeat(64)}`, rootHash: '' },
  },
  stages,
  correlationId: 'c-1',
  refusal: { code: 'IMG_DIGEST', message: 'altered', at: 12_500, container: 'b', count: 2 },
} as const;

it('takes the verdict from the newest decision about the guest, and counts what was released', () => {
  const submods = { cpu0: 'affirming' };
  const asked = [decision('auth', 'OK'), decision('attest', 'OK', { subject: { submods } })];
  expect(verdictOf(asked)).toEqual({ outcome: 'OK', submods, released: 0 });
  const released = [...asked, decision('resource', 'OK'), decision('resource', 'POLICY_DENY')];
  expect(verdictOf(released)).toEqual({ outcome: 'POLICY_DENY', submods, released: 1 });
  expect(verdictOf([])).toEqual({ outcome: 'unknown', released: 0 });
});

it('counts the total from the request for the VM to the last container that started', () => {
  expect(totalOf(start)).toBe(10_500);
  expect(totalOf({ createdAt: 0, stages: [] })).toBeUndefined();
});

it('prints pods and the cost of their stages, parts not counted twice', () => {
  let printed = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += text;
    return true;
  });
  try {
    tellPodStatus('table', [{ ...start, verdict: { outcome: 'OK', submods: { cpu0: 'affirming' } } }]);
  } finally {
    write.mockRestore();
  }
  expect(printed).toMatch(/shop\/web +running +podvm-web 1x512 +default sha256:a{12} +OK \(cpu0 affirming\) +c-1\n/);
  expect(printed).toMatch(/shop\/web +0\.5 s +7\.0 s +3\.0 s failed +0\.5 s +10\.5 s\n/);
  expect(printed).toContain('shop/web: IMG_DIGEST: altered');
});
