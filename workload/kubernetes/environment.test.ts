import { describe, expect, it } from 'vitest';
import { containerEnvironment, type Expected, expand } from './environment.ts';
import { hostnamePattern, literal, podNamePattern } from './names.ts';
import type { Container } from './types.ts';

const none = { configMaps: new Map(), secrets: new Map() };
const known = {
  configMaps: new Map([['c', { kind: 'ConfigMap', data: { mode: 'fast' } } as const]]),
  secrets: new Map([
    [
      's',
      {
        kind: 'Secret',
        data: { token: Buffer.from('t0ken').toString('base64') },
        stringData: { sealed: 'sealed.abc' },
      } as const,
    ],
  ]),
};
const environment = (container: Partial<Container>, of = known) =>
  Object.fromEntries(containerEnvironment({ name: 'c', ...container }, {}, of).variables);

describe('expansion of $(NAME)', () => {
  const values = new Map<string, Expected>([
    ['A', { equals: 'a.b' }],
    ['IP', { pattern: '^[0-9.]+$' }],
  ]);
  it.each<[string, Expected]>([
    ['plain', { equals: 'plain' }],
    ['$(A)-$(A)', { equals: 'a.b-a.b' }],
    ['$(NONE)', { equals: '$(NONE)' }],
    ['$$(A)', { equals: '$(A)' }],
    ['$$$(A)', { equals: '$a.b' }],
    ['$A $ $(', { equals: '$A $ $(' }],
    ['http://$(IP):80/$(A)', { pattern: '^http://([0-9.]+):80/a\\.b$' }],
  ])('%s', (text, expected) => {
    expect(expand(text, values)).toEqual(expected);
  });
});

describe('variables of a container', () => {
  it('takes ConfigMaps by value and Secrets never, unless they are sealed', () => {
    const from = (name: string, valueFrom: object) => ({ name, valueFrom });
    const env = [
      from('MODE', { configMapKeyRef: { name: 'c', key: 'mode' } }),
      from('TOKEN', { secretKeyRef: { name: 's', key: 'token' } }),
      from('SEALED', { secretKeyRef: { name: 's', key: 'sealed' } }),
      { name: 'BOTH', value: '$(MODE)/$(LATER)' },
      { name: 'LATER', value: 'x' },
    ];
    const result = environment({
      env,
      envFrom: [{ prefix: 'P_', configMapRef: { name: 'c' } }, { secretRef: { name: 's' } }],
    });
    expect(result).toMatchObject({
      MODE: { equals: 'fast' },
      P_mode: { equals: 'fast' },
      SEALED: { equals: 'sealed.abc' },
      BOTH: { equals: 'fast/$(LATER)' },
    });
    expect(JSON.stringify(result)).not.toContain('t0ken');
  });

  it('lets a variable be absent that is optional', () => {
    const env = [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'x', key: 'k', optional: true } } }];
    const { variables, optional } = containerEnvironment({ name: 'c', env }, {}, none);
    expect(variables.has('A')).toBe(false);
    expect(optional).toContainEqual(expect.objectContaining({ name: '^A$' }));
  });

  it('refuses a field that no variable can have', () => {
    const env = [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'spec.containers' } } }];
    expect(() => environment({ env })).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
  });
});

describe('names of pods', () => {
  it('quotes what a regular expression would read', () => {
    for (const text of ['a.b', 'a-b', 'x*y', '[z]', '(q)', 'a{2}'])
      expect(new RegExp(`^${literal(text)}$`).test(text)).toBe(true);
    expect(new RegExp(`^${literal('a.b')}$`).test('axb')).toBe(false);
  });

  it('knows a generated name, a long name that was cut, and host names', () => {
    expect(new RegExp(podNamePattern({ kind: 'Pod', metadata: { generateName: 'web-' } })).test('web-x2x4z')).toBe(
      true,
    );
    const long = 'n'.repeat(60);
    const pattern = new RegExp(podNamePattern({ kind: 'Deployment', metadata: { name: long } }));
    expect(pattern.test(`${long.slice(0, 58)}x2x4z`)).toBe(true);
    expect(pattern.test('m'.repeat(60))).toBe(false);
    const job = new RegExp(hostnamePattern({ kind: 'Job', metadata: { name: 'j' } }, {}));
    expect([job.test('j-3'), job.test('j-x2x4z'), job.test('k-3')]).toEqual([true, true, false]);
    expect(hostnamePattern({ kind: 'Pod', metadata: { name: 'p' } }, { hostname: 'h' })).toBe('^h$');
  });
});
