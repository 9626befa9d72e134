import { existsSync, readFileSync } from 'node:fs';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { parseReference } from '@sealpod/registry';
import { describe, expect, it } from 'vitest';
import { type ImagePolicy, parseImagePolicy, requireAllowed, scopesOf } from './policy.ts';

const digest = (byte: string) => `sha256:${byte.repeat(32)}`;
const allow = { type: 'insecureAcceptAnything' };
const reject = { type: 'reject' };
const policyOf = (docker: object, fallback: unknown = [reject]) =>
  parseImagePolicy(JSON.stringify({ default: fallback, transports: { docker } }));
const image = (text: string, manifestDigest = digest('aa'), indexDigest?: string) => ({
  reference: parseReference(text),
  manifestDigest,
  ...(indexDigest === undefined ? {} : { indexDigest }),
});
const isAllowed = (policy: ImagePolicy | undefined, identity: ReturnType<typeof image>) => {
  try {
    requireAllowed(policy, identity);
    return true;
  } catch (error) {
    expect(error).toMatchObject({
      code: 'IMG_POLICY_DENY',
      message: expect.stringMatching(/^Image policy rejected: Denied by policy/),
    });
    return false;
  }
};

describe('image policy', () => {
  it('G-03: no policy and an empty list of requirements refuse', () => {
    expect(isAllowed(undefined, image('registry.example/app:1'))).toBe(false);
    expect(isAllowed(policyOf({}, []), image('registry.example/app:1'))).toBe(false);
    expect(isAllowed(policyOf({ '': [] }, [allow]), image('registry.example/app:1'))).toBe(false);
  });

  it('searches scopes from the most specific on', () => {
    expect(scopesOf(parseReference('registry.example.org:5000/team/sub/app:1'))).toEqual([
      'registry.example.org:5000/team/sub/app:1',
      'registry.example.org:5000/team/sub/app',
      'registry.example.org:5000/team/sub',
      'registry.example.org:5000/team',
      'registry.example.org:5000',
      '*.example.org',
      '*.org',
      '',
    ]);
    expect(scopesOf(parseReference(`registry.example/app@${digest('bb')}`))[0]).toBe(
      `registry.example/app@${digest('bb')}`,
    );
  });

  it('takes the most specific scope alone', () => {
    const policy = policyOf(
      {
        'registry.example/team/app:1': [allow],
        'registry.example/team/app': [reject],
        'registry.example': [allow],
        '*.example.org': [allow],
      },
      [reject],
    );
    expect(isAllowed(policy, image('registry.example/team/app:1'))).toBe(true);
    expect(isAllowed(policy, image('registry.example/team/app:2'))).toBe(false);
    expect(isAllowed(policy, image('registry.example/team/application:1'))).toBe(true);
    expect(isAllowed(policy, image('any.example.org:5000/app'))).toBe(true);
    expect(isAllowed(policy, image('example.org/app'))).toBe(false);
    expect(isAllowed(policy, image('registry.example.evil/team/app:1'))).toBe(false);
    expect(isAllowed(policy, image('evil/registry.example/team/app:1'))).toBe(false);
  });

  it('needs every requirement', () => {
    const pinned = { type: 'digest', digests: [digest('aa')] };
    expect(isAllowed(policyOf({}, [allow, pinned]), image('a.b/c'))).toBe(true);
    expect(isAllowed(policyOf({}, [pinned, reject]), image('a.b/c'))).toBe(false);
    expect(isAllowed(policyOf({}, [pinned]), image('a.b/c', digest('bb')))).toBe(false);
    expect(isAllowed(policyOf({}, [pinned]), image('a.b/c', digest('bb'), digest('aa')))).toBe(true);
    expect(isAllowed(policyOf({}, [{ type: 'digest', digests: [] }]), image('a.b/c'))).toBe(false);
  });

  it.each(['signedBy', 'sigstoreSigned', 'signedBaseLayer', 'accept'])('never lets %s hold', (type) => {
    expect(isAllowed(policyOf({}, [{ type, keyPath: '/key' }]), image('a.b/c'))).toBe(false);
    expect(isAllowed(policyOf({ 'x.y': [{ type }] }, [allow]), image('a.b/c'))).toBe(true);
  });

  it.each([
    '',
    '[]',
    '{}',
    '{"default":{}}',
    '{"default":[[]]}',
    '{"default":[{}]}',
    '{"default":[{"type":"insecureAcceptAnything","exceptFor":"x"}]}',
    '{"default":[{"type":"digest","digests":["sha256:00"]}]}',
    '{"default":[{"type":"digest"}]}',
    '{"default":[{"type":"reject"}],"transport":{}}',
    '{"default":[{"type":"reject"}],"transports":{"docker":{"a":{}}}}',
    '{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}',
  ])('refuses %s as a policy', (text) => {
    expect(() => parseImagePolicy(text)).toThrow(expect.objectContaining({ code: 'POLICY_INVALID' }));
  });

  it('reads the published sample, and every signed scope of it refuses', (context) => {
    const path = vectorPath('image/signature/policy.json');
    if (!existsSync(path)) context.skip('the published vectors are not on this machine');
    const policy = parseImagePolicy(readFileSync(path));
    const unsupported = [...policy.scopes].filter(([, list]) => list.some(({ type }) => type === 'unsupported'));
    expect(unsupported.length).toBeGreaterThan(0);
    for (const [scope] of unsupported) {
      if (!scope.startsWith('*') && scope.includes('/')) expect(isAllowed(policy, image(scope))).toBe(false);
    }
  });
});
