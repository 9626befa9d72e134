import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { openStorage, type Storage } from '@sealpod/storage';
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from 'jose';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type AttestationService, createAttestationService, type TokenConfig } from '../index.ts';
import { newTokenKey, TokenSigner } from './signer.ts';

const minute = 60_000;
let folder: string;
let number = 0;
let storage: Storage;
let clock: number;
const services: AttestationService[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'token-keys-'));
});
beforeEach(async () => {
  number += 1;
  clock = Date.parse('2026-06-01T00:00:00Z');
  storage = await openStorage({ path: join(folder, `${number}`, 'db.sqlite') });
});
afterEach(async () => {
  for (const service of services.splice(0)) await service.close();
  await storage.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function replica(token: TokenConfig = {}): Promise<AttestationService> {
  const service = await createAttestationService({ sample: true, token, now: () => new Date(clock) }, { storage });
  services.push(service);
  return service;
}

async function token(service: AttestationService): Promise<string> {
  const evidence = { tee: 'sample', evidence: { svn: '1', report_data: '' } };
  return (await service.evaluate({ evidences: [evidence], policyIds: [], correlationId: 'c' })).token;
}

const keyOf = (text: string): string => decodeProtectedHeader(text).kid ?? '';
const published = async (service: AttestationService): Promise<string[]> =>
  (await service.jwks()).keys.map(({ kid }) => String(kid));

async function verifies(service: AttestationService, text: string): Promise<boolean> {
  const keys = createLocalJWKSet((await service.jwks()) as unknown as JSONWebKeySet);
  return jwtVerify(text, keys, { currentDate: new Date(clock) }).then(
    () => true,
    () => false,
  );
}

describe('token keys', () => {
  it('rotate without restart: published first, then signing, the old one published while its tokens live', async () => {
    const [one, other] = [await replica(), await replica()];
    const before = await token(one);
    expect(await published(other)).toEqual([keyOf(before)]);
    await one.tokenKeys?.rotate();
    const both = await published(other);
    expect(both).toHaveLength(2);
    clock += 4 * minute;
    expect(keyOf(await token(other))).toBe(keyOf(before));
    clock += 70_000;
    const after = await token(other);
    expect(keyOf(after)).toBe(both[1]);
    expect(keyOf(await token(one))).toBe(both[1]);
    expect(await verifies(one, after)).toBe(true);
    const last = before;
    expect(await published(one)).toContain(keyOf(last));
    clock += 7 * minute;
    expect(await published(one)).toEqual([both[1]]);
    expect(await verifies(one, last)).toBe(false);
  });

  it('rotate by themselves after the configured time, once for all replicas', async () => {
    const config = { rotateKeyAfterSeconds: 86_400 };
    const [one, other] = [await replica(config), await replica(config)];
    const first = keyOf(await token(one));
    clock += 86_400_000;
    await Promise.all([token(one), token(other)]);
    expect(await published(one)).toHaveLength(2);
    expect(await published(other)).toEqual(await published(one));
    clock += 6 * minute;
    const second = keyOf(await token(one));
    expect(second).not.toBe(first);
    expect(await verifies(other, await token(one))).toBe(true);
  });

  it('are rotated once where several ask before the new key signs', async () => {
    const [one, other] = [await replica(), await replica()];
    await Promise.all([one.tokenKeys?.rotate(), other.tokenKeys?.rotate(), one.tokenKeys?.rotate()]);
    expect(await published(one)).toHaveLength(2);
  });

  it('go on signing where the storage takes no new key, and rotate when it does', async () => {
    const service = await replica({ rotateKeyAfterSeconds: 86_400 });
    const first = keyOf(await token(service));
    clock += 2 * 86_400_000;
    const transaction = storage.transaction;
    storage.transaction = () => Promise.reject(new SealpodError('STORAGE', 'database or disk is full'));
    expect(keyOf(await token(service))).toBe(first);
    storage.transaction = transaction;
    clock += minute;
    expect(await published(service)).toHaveLength(2);
  });

  it('go on with the key of a release that had one for ever', async () => {
    const former = await newTokenKey();
    await storage.put('attestation-secret', 'token-key', former);
    const kid = (await TokenSigner.open(former)).publicJwk()['kid'];
    expect(keyOf(await token(await replica()))).toBe(kid);
  });

  it('refuse what is damaged in storage', async () => {
    await storage.put('attestation-token-keys', 'keys', '{"keys":[{"pkcs8":1}]}');
    await expect(replica()).rejects.toMatchObject({ code: 'STORAGE' });
  });
});

describe('tokens', () => {
  it('live five minutes, carry an audience where one is configured', async () => {
    const claims = decodeJwt(await token(await replica({ audience: 'https://kbs.example' })));
    expect(claims.aud).toBe('https://kbs.example');
    expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(300);
    expect(decodeJwt(await token(await replica())).aud).toBeUndefined();
  });

  it('carry additional evidence by choice; the digest covers it either way', async () => {
    const structured = { nonce: 'n', 'tee-pubkey': { kty: 'EC' }, 'additional-evidence': 'x'.repeat(1000) };
    const claimsOf = async (config: TokenConfig) => {
      const service = await replica(config);
      const evidence = { tee: 'sample', evidence: { svn: '1', report_data: reportData }, runtimeData: { structured } };
      const { claims } = await service.evaluate({ evidences: [evidence], policyIds: [], correlationId: 'c' });
      return claims.submods['cpu0']?.['ear.veraison.annotated-evidence']['runtime_data_claims'];
    };
    const canonical = `{"additional-evidence":"${structured['additional-evidence']}","nonce":"n","tee-pubkey":{"kty":"EC"}}`;
    const reportData = createHash('sha384').update(canonical).digest('base64');
    expect(await claimsOf({})).toEqual(structured);
    expect(await claimsOf({ verbose: false })).toEqual({ nonce: 'n', 'tee-pubkey': { kty: 'EC' } });
  });
});
