import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { quantityInThousandths } from './kubernetes/quantity.ts';
import type { Container, PodSpec } from './kubernetes/types.ts';
import { machineSize } from './sizing.ts';

const container = (cpu?: string, memory?: string, more: Partial<Container> = {}): Container => ({
  name: 'c',
  resources: { limits: { ...(cpu === undefined ? {} : { cpu }), ...(memory === undefined ? {} : { memory }) } },
  ...more,
});
const sidecar = (cpu: string, memory: string) => container(cpu, memory, { restartPolicy: 'Always' });

describe('quantities', () => {
  it.each([
    ['1', 1000n],
    ['500m', 500n],
    ['0.5', 500n],
    ['.5', 500n],
    ['1.', 1000n],
    ['1n', 1n],
    ['1u', 1n],
    ['1500u', 2n],
    ['64Mi', 67_108_864_000n],
    ['1.5Gi', 1_610_612_736_000n],
    ['1k', 1_000_000n],
    ['1e3', 1_000_000n],
    ['1E3', 1_000_000n],
    ['12e-1', 1200n],
    ['1E', 10n ** 21n],
    [2, 2000n],
    ['+3', 3000n],
  ])('%s', (text, expected) => {
    expect(quantityInThousandths(text)).toBe(expected);
  });

  it.each(['', '.', '-1', '1 Mi', '1mi', 'Ki', '1KiB', '0x1', 'NaN', '1e', '1e999'])('refuses %j', (text) => {
    expect(() => quantityInThousandths(text)).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
  });
});

describe('size of a machine', () => {
  it.each<[string, PodSpec, object]>([
    [
      'says nothing where the pod says nothing',
      { containers: [{ name: 'c' }], overhead: { cpu: '1', memory: '1Gi' } },
      {},
    ],
    [
      'adds up containers and rounds once, at the end',
      { containers: [container('500m', '100Ki'), container('500m', '100Ki')] },
      { vcpus: 1, memoryMiB: 1 },
    ],
    [
      'takes the request where it is more than the limit, or alone',
      { containers: [{ name: 'c', resources: { requests: { cpu: '1500m', memory: '64Mi' } } }] },
      { vcpus: 2, memoryMiB: 64 },
    ],
    [
      'takes the neediest init container, not their sum',
      {
        initContainers: [container('3', '1Gi'), container('2', '2Gi')],
        containers: [container('1', '512Mi'), container('1', '512Mi')],
      },
      { vcpus: 3, memoryMiB: 2048 },
    ],
    [
      'adds sidecars to the containers',
      { initContainers: [sidecar('1', '64Mi')], containers: [container('1', '64Mi')] },
      { vcpus: 2, memoryMiB: 128 },
    ],
    [
      'adds to an init container only the sidecars before it',
      {
        initContainers: [sidecar('1', '64Mi'), container('4', '128Mi'), sidecar('2', '32Mi')],
        containers: [container('500m', '16Mi')],
      },
      { vcpus: 5, memoryMiB: 192 },
    ],
    [
      'adds the overhead',
      { containers: [container('1', '64Mi')], overhead: { cpu: '250m', memory: '120Mi' } },
      { vcpus: 2, memoryMiB: 184 },
    ],
    [
      'takes the resources of the pod as a whole before those of its containers',
      { containers: [container('1', '64Mi')], resources: { limits: { cpu: '3', memory: '1Gi' } } },
      { vcpus: 3, memoryMiB: 1024 },
    ],
    [
      'takes a limit of the pod also where its containers ask for more: they do not get it',
      { containers: [container('4', '64Mi')], resources: { limits: { cpu: '2' }, requests: { cpu: '1' } } },
      { vcpus: 2, memoryMiB: 64 },
    ],
    [
      'takes the sum of the limits where the pod as a whole has a request only',
      { containers: [container('2', '64Mi'), container('2', '64Mi')], resources: { requests: { cpu: '1' } } },
      { vcpus: 4, memoryMiB: 128 },
    ],
    [
      'takes a request of the pod that is more than its containers need',
      { containers: [container('1', '64Mi')], resources: { requests: { cpu: '3', memory: '1Gi' } } },
      { vcpus: 3, memoryMiB: 1024 },
    ],
    [
      'adds the overhead to resources of the pod as a whole',
      {
        containers: [{ name: 'c' }],
        resources: { limits: { cpu: '1', memory: '64Mi' } },
        overhead: { memory: '64Mi' },
      },
      { vcpus: 1, memoryMiB: 128 },
    ],
    [
      'counts a sidecar and the init container after it before the containers run',
      {
        initContainers: [sidecar('500m', '32Mi'), container('2', '16Mi'), sidecar('500m', '32Mi')],
        containers: [container('500m', '16Mi')],
        overhead: { cpu: '100m', memory: '20Mi' },
      },
      { vcpus: 3, memoryMiB: 100 },
    ],
    [
      'counts processors of graphics',
      { containers: [{ name: 'c', resources: { limits: { 'nvidia.com/gpu': 2 } } }] },
      { gpus: 2 },
    ],
  ])('%s', (_what, spec, expected) => {
    expect(machineSize(spec)).toEqual(expected);
  });

  it('leaves the overhead out, and adds what the guest needs, where it is told to', () => {
    const spec = { containers: [container('1', '64Mi')], overhead: { cpu: '250m', memory: '120Mi' } };
    expect(machineSize(spec, { includeOverhead: false, guestMemoryMiB: 200 })).toEqual({ vcpus: 1, memoryMiB: 264 });
  });

  it('is never below what runs at any one time', () => {
    const kind = fc.constantFrom<'init' | 'sidecar' | 'main'>('init', 'sidecar', 'main');
    fc.assert(
      fc.property(fc.array(fc.tuple(kind, fc.integer({ min: 0, max: 4000 })), { maxLength: 8 }), (containers) => {
        const of = (wanted: readonly string[]) => containers.filter(([name]) => wanted.includes(name));
        const spec: PodSpec = {
          initContainers: of(['init', 'sidecar']).map(([name, cpu]) =>
            name === 'sidecar' ? sidecar(`${cpu}m`, '1Mi') : container(`${cpu}m`, '1Mi'),
          ),
          containers: of(['main']).map(([, cpu]) => container(`${cpu}m`, '1Mi')),
        };
        // Plays the start of the pod: at each moment the sidecars started so far and one init container, then all others.
        let running = 0;
        let most = 0;
        for (const [name, cpu] of of(['init', 'sidecar'])) {
          most = Math.max(most, running + cpu);
          if (name === 'sidecar') running += cpu;
        }
        most = Math.max(
          most,
          of(['main']).reduce((sum, [, cpu]) => sum + cpu, running),
        );
        expect(machineSize(spec).vcpus ?? 0).toBe(Math.ceil(most / 1000));
      }),
    );
  });
});
