import { formatReference, parseReference } from '@sealpod/registry';
import { describe, expect, it } from 'vitest';
import { endpointsFor, type RegistryRule } from './registry-rules.ts';

const endpoints = (text: string, rules: readonly RegistryRule[]) =>
  endpointsFor(parseReference(text), rules).map(
    ({ reference, plainHttp }) => `${plainHttp ? 'http' : 'https'} ${formatReference(reference)}`,
  );

describe('registry rules', () => {
  it('uses TLS and the name itself without a rule', () => {
    expect(endpoints('a.example/app:1', [])).toEqual(['https a.example/app:1']);
  });

  it('takes the longest prefix, from the start and up to a separator', () => {
    const rules: RegistryRule[] = [
      { location: 'a.example', insecure: true },
      { prefix: 'a.example/team', location: 'b.example/other' },
      { prefix: '*.c.example', location: 'd.example:5000', insecure: true },
    ];
    expect(endpoints('a.example/x:1', rules)).toEqual(['http a.example/x:1']);
    expect(endpoints('a.example/team/x:1', rules)).toEqual(['https b.example/other/x:1']);
    expect(endpoints('a.example/teamwork:1', rules)).toEqual(['http a.example/teamwork:1']);
    expect(endpoints('a.example.evil/x:1', rules)).toEqual(['https a.example.evil/x:1']);
    expect(endpoints('evil.example/a.example/x:1', rules)).toEqual(['https evil.example/a.example/x:1']);
    expect(endpoints('a.example:5000/x:1', rules)).toEqual(['http a.example:5000/x:1']);
    expect(endpoints('x.c.example:443/y:1', rules)).toEqual(['http d.example:5000/y:1']);
    expect(endpoints('c.example/y:1', rules)).toEqual(['https c.example/y:1']);
  });

  it('tries mirrors first and keeps the digest', () => {
    const digest = `sha256:${'ab'.repeat(32)}`;
    const rules = [{ location: 'a.example', mirrors: [{ location: 'm.example/cache', insecure: true }] }];
    expect(endpoints(`a.example/x@${digest}`, rules)).toEqual([
      `http m.example/cache/x@${digest}`,
      `https a.example/x@${digest}`,
    ]);
  });

  it('refuses what is blocked, and rules without a name', () => {
    expect(() => endpoints('a.example/x', [{ prefix: 'a.example', blocked: true }])).toThrow(
      'is blocked by registry rule',
    );
    expect(() => endpoints('a.example/x', [{ insecure: true }])).toThrow(
      expect.objectContaining({ code: 'INITDATA_SCHEMA' }),
    );
  });
});
