import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { describe, expect, it } from 'vitest';
import { type ImagePolicy, parseImagePolicy, requireAllowed, type SignatureSource, scopesOf } from './image-policy.ts';
import { parseReference } from './reference.ts';

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
const isAllowed = async (
  policy: ImagePolicy | undefined,
  identity: ReturnType<typeof image>,
  source?: SignatureSource,
) => {
  try {
    await requireAllowed(policy, identity, source);
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
  it('G-03: no policy and an empty list of requirements refuse', async () => {
    expect(await isAllowed(undefined, image('registry.example/app:1'))).toBe(false);
    expect(await isAllowed(policyOf({}, []), image('registry.example/app:1'))).toBe(false);
    expect(await isAllowed(policyOf({ '': [] }, [allow]), image('registry.example/app:1'))).toBe(false);
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

  it('takes the most specific scope alone', async () => {
    const policy = policyOf(
      {
        'registry.example/team/app:1': [allow],
        'registry.example/team/app': [reject],
        'registry.example': [allow],
        '*.example.org': [allow],
      },
      [reject],
    );
    expect(await isAllowed(policy, image('registry.example/team/app:1'))).toBe(true);
    expect(await isAllowed(policy, image('registry.example/team/app:2'))).toBe(false);
    expect(await isAllowed(policy, image('registry.example/team/application:1'))).toBe(true);
    expect(await isAllowed(policy, image('any.example.org:5000/app'))).toBe(true);
    expect(await isAllowed(policy, image('example.org/app'))).toBe(false);
    expect(await isAllowed(policy, image('registry.example.evil/team/app:1'))).toBe(false);
    expect(await isAllowed(policy, image('evil/registry.example/team/app:1'))).toBe(false);
  });

  it('needs every requirement', async () => {
    const pinned = { type: 'digest', digests: [digest('aa')] };
    expect(await isAllowed(policyOf({}, [allow, pinned]), image('a.b/c'))).toBe(true);
    expect(await isAllowed(policyOf({}, [pinned, reject]), image('a.b/c'))).toBe(false);
    expect(await isAllowed(policyOf({}, [pinned]), image('a.b/c', digest('bb')))).toBe(false);
    expect(await isAllowed(policyOf({}, [pinned]), image('a.b/c', digest('bb'), digest('aa')))).toBe(true);
    expect(await isAllowed(policyOf({}, [{ type: 'digest', digests: [] }]), image('a.b/c'))).toBe(false);
  });

  it.each(['signedBy', 'sigstoreSigned', 'signedBaseLayer', 'accept'])('never lets %s hold', async (type) => {
    expect(await isAllowed(policyOf({}, [{ type, keyPath: '/key' }]), image('a.b/c'))).toBe(false);
    expect(await isAllowed(policyOf({ 'x.y': [{ type }] }, [allow]), image('a.b/c'))).toBe(true);
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

  it('reads the published sample, and every signed scope of it refuses', async (context) => {
    const path = vectorPath('image/signature/policy.json');
    if (!existsSync(path)) context.skip('the published vectors are not on this machine');
    const policy = parseImagePolicy(readFileSync(path));
    const unsupported = [...policy.scopes].filter(([, list]) => list.some(({ type }) => type === 'unsupported'));
    expect(unsupported.length).toBeGreaterThan(0);
    for (const [scope] of unsupported) {
      if (!scope.startsWith('*') && scope.includes('/')) expect(await isAllowed(policy, image(scope))).toBe(false);
    }
  });
});

describe('S-20: signatures', () => {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString();
  const name = 'registry.example/team/app';
  const payload = (digestOf: string, reference = name, type = 'cosign container image signature') =>
    Buffer.from(
      JSON.stringify({
        critical: { identity: { 'docker-reference': reference }, image: { 'docker-manifest-digest': digestOf }, type },
        optional: null,
      }),
    );
  const signed = (bytes: Buffer, key: KeyObject = pair.privateKey) => ({
    payload: bytes,
    signature: sign(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', bytes, key),
  });
  const from = (...signatures: { payload: Buffer; signature: Buffer }[]): SignatureSource => ({
    signatures: async (of) => (of === digest('aa') ? signatures : []),
    key: async (uri) => {
      expect(uri).toBe('kbs:///default/cosign-public-key/app');
      return pem(pair.publicKey);
    },
  });
  const policy = (more: object) => policyOf({}, [{ type: 'sigstoreSigned', ...more }]);
  const byData = policy({ keyData: Buffer.from(pem(pair.publicKey)).toString('base64') });
  const asked = image(`${name}@${digest('aa')}`);

  it('hold with the key of the policy, in each form it may have', async () => {
    const good = from(signed(payload(digest('aa'))));
    expect(await isAllowed(byData, asked, good)).toBe(true);
    expect(await isAllowed(policy({ keyData: pem(pair.publicKey) }), asked, good)).toBe(true);
    expect(await isAllowed(policy({ keyPath: 'kbs:///default/cosign-public-key/app' }), asked, good)).toBe(true);
    for (const other of [generateKeyPairSync('rsa', { modulusLength: 2048 }), generateKeyPairSync('ed25519')]) {
      const byOther = policy({ keyData: pem(other.publicKey) });
      expect(await isAllowed(byOther, asked, from(signed(payload(digest('aa')), other.privateKey)))).toBe(true);
      expect(await isAllowed(byOther, asked, good)).toBe(false);
    }
    // One that holds is enough, wherever it stands; also one of the index.
    expect(await isAllowed(byData, asked, from(signed(payload(digest('bb'))), signed(payload(digest('aa')))))).toBe(
      true,
    );
    expect(await isAllowed(byData, image(`${name}:1`, digest('cc'), digest('aa')), good)).toBe(true);
  });

  it.each<[string, SignatureSource | undefined]>([
    ['no signature', from()],
    ['nobody to ask for signatures', undefined],
    ['another key', from(signed(payload(digest('aa')), generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey))],
    ['another image', from(signed(payload(digest('bb'))))],
    ['another repository', from(signed(payload(digest('aa'), 'registry.example/team/other')))],
    ['another kind of document', from(signed(payload(digest('aa'), name, 'atomic container signature')))],
    ['a changed payload', from({ ...signed(payload(digest('bb'))), payload: payload(digest('aa')) })],
    [
      'no name',
      from(
        signed(
          Buffer.from(
            `{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":"${digest('aa')}"}}}`,
          ),
        ),
      ),
    ],
  ])('do not hold with %s', async (_what, source) => {
    expect(await isAllowed(byData, asked, source)).toBe(false);
  });

  it('are for the repository that was asked for, or the one that the policy names', async () => {
    const identity = { type: 'exactRepository', dockerRepository: 'upstream.example/app' };
    const renamed = policy({ keyData: pem(pair.publicKey), signedIdentity: identity });
    expect(await isAllowed(renamed, asked, from(signed(payload(digest('aa'), 'upstream.example/app'))))).toBe(true);
    expect(await isAllowed(renamed, asked, from(signed(payload(digest('aa')))))).toBe(false);
  });

  it.each([
    { keyData: 'no key' },
    { keyPath: '/etc/key.pem' },
    { keyPath: 'kbs:///a/b/c', keyData: 'x' },
    { keyPath: 'kbs:///a/b/c', rekorPublicKeyData: 'x' },
    { keyPath: 'kbs:///a/b/c', signedIdentity: { type: 'remapIdentity', prefix: 'a', signedPrefix: 'b' } },
    {},
  ])('never hold where the requirement is not supported: %j', async (more) => {
    expect(await isAllowed(policy(more), asked, from(signed(payload(digest('aa')))))).toBe(false);
  });
});
