import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AdminRole, signAdminToken } from '@sealpod/kbs-client/token';
import { SignJWT } from 'jose';
import { afterAll, describe, expect, it } from 'vitest';
import { Authenticator } from './authenticator.ts';

const directory = mkdtempSync(join(tmpdir(), 'sealpod-admin-'));
afterAll(() => rmSync(directory, { recursive: true }));

const owner = generateKeyPairSync('ed25519');
const operator = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const stranger = generateKeyPairSync('ed25519');

function publicFile(name: string, key: KeyObject): string {
  const path = join(directory, name);
  writeFileSync(path, key.export({ type: 'spki', format: 'pem' }));
  return path;
}

const names = { issuer: 'sealpod', audience: 'sealpod-kbs' };
const keys = [
  { publicKeyFile: publicFile('owner.pem', owner.publicKey), maxRole: 'owner', ...names },
  { publicKeyFile: publicFile('operator.pem', operator.publicKey), maxRole: 'operator', ...names },
] as const;
const authenticator = new Authenticator(keys);
const token = (privateKey: KeyObject, role: AdminRole = 'owner', ttlSeconds = 60) =>
  signAdminToken({ privateKey, role, subject: 'somebody', ttlSeconds });
const authorize = (
  authorization: string | undefined,
  action: Parameters<Authenticator['authorize']>[1] = 'status:read',
) => authenticator.authorize(authorization, action, '/some/path');

const cannotVerify = {
  code: 'ADMIN_TOKEN',
  message: 'Admin access denied: Cannot verify token with any of the issuers',
};
const noHeader = { code: 'ADMIN_TOKEN', message: 'Failed to parse HTTP Auth Bearer header' };
const seconds = () => Math.floor(Date.now() / 1000);

function jwt(claims: Record<string, unknown>, key: KeyObject = owner.privateKey, alg = 'EdDSA'): Promise<string> {
  const all = {
    iss: 'sealpod',
    aud: 'sealpod-kbs',
    sub: 's',
    role: 'owner',
    iat: seconds(),
    exp: seconds() + 60,
    ...claims,
  };
  return new SignJWT(all).setProtectedHeader({ alg }).sign(key);
}

describe('administrators', () => {
  it('are known by tokens of the pinned keys', async () => {
    expect(await authorize(`Bearer ${await token(owner.privateKey)}`)).toMatchObject({
      subject: 'somebody',
      role: 'owner',
    });
    const es256 = await token(operator.privateKey, 'operator');
    expect(await authorize(`Bearer ${es256}`, 'resource:write')).toMatchObject({ role: 'operator' });
  });

  it('G-09: nobody is let in by being first: a token of another key is refused, its key in the header changes nothing', async () => {
    await expect(authorize(`Bearer ${await token(stranger.privateKey)}`)).rejects.toMatchObject(cannotVerify);
    const withKey = await new SignJWT({ role: 'owner' })
      .setProtectedHeader({ alg: 'EdDSA', jwk: stranger.publicKey.export({ format: 'jwk' }) as never })
      .setIssuer('sealpod')
      .setAudience('sealpod-kbs')
      .setIssuedAt()
      .setExpirationTime('1m')
      .sign(stranger.privateKey);
    await expect(authorize(`Bearer ${withKey}`)).rejects.toMatchObject(cannotVerify);
  });

  it.each([
    ['undefined', undefined],
    ['empty', ''],
    ['the scheme alone', 'Bearer'],
    ['another scheme', 'Basic dTpw'],
    ['a lower-case scheme', 'bearer x'],
  ])('are refused with a header that is %s', async (_name, header) => {
    await expect(authorize(header)).rejects.toMatchObject(noHeader);
  });

  it.each<[string, Record<string, unknown>]>([
    ['expired', { exp: seconds() - 6 }],
    ['without exp', { exp: undefined }],
    ['without iat', { iat: undefined }],
    ['issued in the future', { iat: seconds() + 60, exp: seconds() + 120 }],
    ['not valid yet', { nbf: seconds() + 60 }],
    ['of another issuer', { iss: 'other' }],
    ['without issuer', { iss: undefined }],
    ['for another audience', { aud: ['other'] }],
    ['without audience', { aud: undefined }],
    ['G-12: valid for more than 24 hours', { iat: seconds() - 10, exp: seconds() + 24 * 3600 }],
    ['G-12: valid for ten years', { exp: seconds() + 315_360_000 }],
  ])('are refused with a token that is %s', async (_name, claims) => {
    await expect(authorize(`Bearer ${await jwt(claims)}`)).rejects.toMatchObject(cannotVerify);
  });

  it('may have a list of audiences', async () => {
    expect(await authorize(`Bearer ${await jwt({ aud: ['other', 'sealpod-kbs'] })}`)).toMatchObject({ role: 'owner' });
  });

  it.each([
    ['no role', undefined],
    ['a list as role', ['owner']],
  ])('are refused with %s', async (_name, role) => {
    await expect(authorize(`Bearer ${await jwt({ role })}`)).rejects.toMatchObject({
      code: 'ADMIN_TOKEN',
      message: expect.stringContaining('Missing required `role` claim'),
    });
  });

  it.each(['admin', 'Owner', '', 'constructor'])('are refused with the role %j', async (role) => {
    await expect(authorize(`Bearer ${await jwt({ role })}`)).rejects.toMatchObject({
      code: 'ADMIN_ROLE',
      message: `Admin access denied: Role ${role} not allowed for path /some/path`,
    });
  });

  it('cannot claim more than their key may', async () => {
    for (const role of ['owner', 'auditor'] as const) {
      const claimed = await token(operator.privateKey, role);
      await expect(authorize(`Bearer ${claimed}`)).rejects.toMatchObject({ code: 'ADMIN_ROLE' });
    }
  });

  it('G-23: cannot choose the algorithm', async () => {
    const claims = { iss: 'sealpod', aud: 'sealpod-kbs', role: 'owner', iat: seconds(), exp: seconds() + 60 };
    const pem = owner.publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const hmac = await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(pem));
    const b64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const none = `${b64({ alg: 'none' })}.${b64(claims)}.`;
    for (const forged of [hmac, none]) await expect(authorize(`Bearer ${forged}`)).rejects.toMatchObject(cannotVerify);
    const good = await token(owner.privateKey);
    await expect(authorize(`Bearer ${good.slice(0, -2)}AA`)).rejects.toMatchObject(cannotVerify);
  });

  it('lose their right when the token expires, also one that was seen before', async () => {
    let now = Date.now();
    const later = new Authenticator(keys, () => now);
    const header = `Bearer ${await token(owner.privateKey)}`;
    await later.authorize(header, 'status:read', '/');
    now += 66_000;
    await expect(later.authorize(header, 'status:read', '/')).rejects.toMatchObject(cannotVerify);
  });

  it.each<[AdminRole, Parameters<Authenticator['authorize']>[1], boolean]>([
    ['owner', 'decision:read', true],
    ['owner', 'resource:write', true],
    ['operator', 'resource:write', true],
    ['operator', 'policy:write', true],
    ['operator', 'reference-value:write', true],
    ['operator', 'decision:read', false],
    ['auditor', 'decision:read', true],
    ['auditor', 'status:read', true],
    ['auditor', 'resource:list', false],
    ['auditor', 'resource:write', false],
    ['auditor', 'policy:write', false],
    ['auditor', 'policy:read', false],
    ['auditor', 'reference-value:write', false],
  ])('%s and %s: %s', async (role, action, allowed) => {
    const attempt = authorize(`Bearer ${await token(owner.privateKey, role)}`, action);
    if (allowed) expect((await attempt).role).toBe(role);
    else await expect(attempt).rejects.toMatchObject({ code: 'ADMIN_ROLE' });
  });
});

describe('keys', () => {
  it.each([
    ['a private key', () => owner.privateKey.export({ type: 'pkcs8', format: 'pem' })],
    [
      'an RSA key',
      () => generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' }),
    ],
    [
      'an EC key of another curve',
      () => generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ type: 'spki', format: 'pem' }),
    ],
    ['no key', () => 'x'],
  ])('that are %s are refused at the start', (_name, make) => {
    const publicKeyFile = join(directory, 'odd.pem');
    writeFileSync(publicKeyFile, make());
    expect(() => new Authenticator([{ publicKeyFile, maxRole: 'owner', ...names }])).toThrow(
      expect.objectContaining({ code: 'USAGE' }),
    );
  });
});

describe('tokens', () => {
  it.each([0, -1, 1.5, 24 * 3600 + 1, Number.NaN])('are not made for %s seconds', async (ttlSeconds) => {
    const options = { privateKey: owner.privateKey, role: 'owner', subject: 's', ttlSeconds } as const;
    await expect(signAdminToken(options)).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('are not made for other roles, nobody, or with other keys', async () => {
    const good = { privateKey: owner.privateKey, role: 'owner', subject: 's', ttlSeconds: 60 } as const;
    await expect(signAdminToken({ ...good, role: 'root' as AdminRole })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(signAdminToken({ ...good, subject: '' })).rejects.toMatchObject({ code: 'USAGE' });
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    await expect(signAdminToken({ ...good, privateKey })).rejects.toMatchObject({ code: 'USAGE' });
    const pem = owner.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    expect(await authorize(`Bearer ${await signAdminToken({ ...good, privateKey: pem })}`)).toMatchObject({
      subject: 's',
    });
  });
});
