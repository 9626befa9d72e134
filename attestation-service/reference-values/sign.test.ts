import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asSealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { openStorage } from '@sealpod/storage';
import { afterEach, describe, expect, it } from 'vitest';
import { type AttestationService, createAttestationService } from '../index.ts';
import type { ReferenceValuesConfig } from './config.ts';
import {
  addSignatures,
  readSignableFile,
  referenceValueStatement,
  type StatementOptions,
  signStatement,
} from './sign.ts';

const now = new Date('2026-06-01T00:00:00Z');
const keys = {
  ed25519: generateKeyPairSync('ed25519'),
  p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
};
type KeyName = keyof typeof keys;
const all = Object.keys(keys) as KeyName[];
const signing = (...names: KeyName[]) => names.map((name) => ({ name, privateKey: keys[name].privateKey }));
const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString();
const enrolled = (...names: KeyName[]) => names.map((name) => ({ name, publicKey: pem(keys[name].publicKey) }));

const close: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const step of close.splice(0).reverse()) await step();
});

async function open(referenceValues: ReferenceValuesConfig): Promise<AttestationService> {
  const folder = await mkdtemp(join(tmpdir(), 'signed-values-'));
  close.push(() => rm(folder, { recursive: true, force: true }));
  const storage = await openStorage({ path: join(folder, 'db.sqlite'), now: () => now.getTime() });
  close.push(() => storage.close());
  const service = await createAttestationService({ sample: true, referenceValues, now: () => now }, { storage });
  close.push(() => service.close());
  return service;
}

const statement = (values: JsonObject = { tpm_kernel: ['3f'] }, options: Partial<StatementOptions> = {}): JsonObject =>
  referenceValueStatement(values, {
    subject: { name: 'pod-vm', sha256: 'ab'.repeat(32) },
    issuedAt: now,
    ...options,
  });
const message = (envelope: JsonValue): string =>
  JSON.stringify({ version: '0.1.0', type: 'dsse', payload: Buffer.from(JSON.stringify(envelope)).toString('base64') });
const codeOf = async (work: () => unknown): Promise<string> => {
  try {
    await work();
    return 'OK';
  } catch (thrown) {
    return asSealpodError(thrown).code;
  }
};

describe('reference values that are signed here', () => {
  it.each(all)('by an enrolled %s key are registered; by any other key they are refused', async (name) => {
    const service = await open({ signers: enrolled(name) });
    const options = { expiresAt: '2026-09-01T00:00:00Z', scope: 'default' };
    await service.registerReferenceValues(message(signStatement(statement(undefined, options), signing(name), now)));
    expect(await service.getReferenceValue('tpm_kernel', 'default')).toMatchObject({
      value: ['3f'],
      scope: 'default',
      expiresAt: '2026-09-01T00:00:00.000Z',
      provenance: { kind: 'signed', format: 'dsse', signers: [name], issuedAt: now.toISOString() },
    });
    for (const other of all.filter((one) => one !== name)) {
      const foreign = signStatement(statement({ other: 1 }), signing(other), now);
      expect(await codeOf(() => service.registerReferenceValues(message(foreign)))).toBe('RV_SIGNATURE');
    }
    expect(await service.getReferenceValue('other')).toBeUndefined();
  });

  it('hold their signature: with one byte of payload or signature changed they are refused', async () => {
    const service = await open({ signers: enrolled('p384') });
    const envelope = signStatement(statement(), signing('p384'), now);
    const payload = Buffer.from(String(envelope['payload']), 'base64').toString().replace('3f', '3e');
    const forged = { ...envelope, payload: Buffer.from(payload).toString('base64') };
    expect(await codeOf(() => service.registerReferenceValues(message(forged)))).toBe('RV_SIGNATURE');
    const retyped = { ...envelope, payloadType: 'application/vnd.in-toto+json ' };
    expect(await codeOf(() => service.registerReferenceValues(message(retyped)))).toBe('RV_SIGNATURE');
  });

  it('get the signatures of several signers, at once or one after the other', async () => {
    const service = await open({ signers: enrolled('ed25519', 'p256'), requiredSignatures: 2 });
    const first = signStatement(statement(), signing('ed25519'), now);
    expect(await codeOf(() => service.registerReferenceValues(message(first)))).toBe('RV_SIGNATURE');
    expect(await codeOf(() => addSignatures(first, signing('ed25519'), now))).toBe('USAGE');
    await service.registerReferenceValues(message(addSignatures(first, signing('p256'), now)));
    await service.registerReferenceValues(message(signStatement(statement(), signing('ed25519', 'p256'), now)));
  });

  it.each<[string, () => unknown, string]>([
    ['no values', () => signStatement(statement({}), signing('p256'), now), 'REQUEST_FORMAT'],
    ['an id that is none', () => signStatement(statement({ '../x': 1 }), signing('p256'), now), 'REQUEST_FORMAT'],
    [
      'a date that is none',
      () => signStatement(statement({ a: 1 }, { expiresAt: 'soon' }), signing('p256'), now),
      'REQUEST_FORMAT',
    ],
    [
      'a time that is over',
      () => signStatement(statement({ a: 1 }, { expiresAt: '2026-05-01T00:00:00Z' }), signing('p256'), now),
      'RV_EXPIRED',
    ],
    [
      'a scope that is none',
      () => signStatement(statement({ a: 1 }, { scope: '../x' }), signing('p256'), now),
      'REQUEST_FORMAT',
    ],
    [
      'another predicate',
      () => signStatement({ ...statement(), predicateType: 'https://slsa.dev/provenance/v1' }, signing('p256'), now),
      'UNSUPPORTED',
    ],
    ['one key twice', () => signStatement(statement(), signing('p256', 'p256'), now), 'USAGE'],
    [
      'an RSA key',
      () =>
        signStatement(
          statement(),
          [{ name: 'rsa', privateKey: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey }],
          now,
        ),
      'USAGE',
    ],
    [
      'a P-521 key',
      () =>
        signStatement(
          statement(),
          [{ name: 'p521', privateKey: generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey }],
          now,
        ),
      'USAGE',
    ],
    ['text', () => readSignableFile(Buffer.from('text'), 'x'), 'USAGE'],
    ['a list', () => readSignableFile(Buffer.from('[]'), 'x'), 'USAGE'],
    ['measurements that are none', () => readSignableFile(Buffer.from('{"reference_values":1}'), 'x'), 'USAGE'],
  ])('with %s are not made', async (_what, make, expected) => {
    expect(await codeOf(make)).toBe(expected);
  });
});
