import { randomBytes } from 'node:crypto';
import type { JsonObject } from '@sealpod/protocol/json';
import { seVerifier } from '../../se/index.ts';
import { revocationList, TestIbm, TestUltravisor } from '../../se/testing/mint.ts';
import type { SeTrust } from '../../se/trust.ts';
import { flipped, type MutatedTee, type Mutation } from './mutation.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = Buffer.alloc(64, 7);

export async function seMutations(): Promise<MutatedTee> {
  const ibm = await TestIbm.create();
  const trust = await ibm.trust();
  const key = randomBytes(32);
  const under = (change: Partial<SeTrust> = {}, by = key) => seVerifier({ ...trust, ...change }, by, () => now);
  const verifier = under();
  const ask = (): string => verifier.challenge?.('') ?? '';
  const [challenge, later] = [ask(), ask()];
  const machine = await TestUltravisor.of(ibm.host);
  const genuine = machine.attest(challenge, reportData);
  const changed = (name: string, at = 5): Mutation => ({
    what: `member ${name} changed`,
    evidence: { ...genuine, [name]: flipped(genuine[name], at, 'base64') },
  });
  const attested = (what: string, faults: Parameters<TestUltravisor['attest']>[2]): Mutation => ({
    what,
    evidence: machine.attest(challenge, reportData, faults),
  });
  const other = JSON.parse(later) as JsonObject;
  const mixed = (name: string): Mutation => ({
    what: `member ${name} of another challenge`,
    evidence: { ...genuine, [name]: other[name] ?? null },
    against: { nonce: undefined },
  });
  const lists = async (what: string, list: readonly Buffer[]): Promise<Mutation> => ({
    what,
    evidence: genuine,
    by: under({ revocationLists: list }),
  });
  return {
    tee: 'se',
    verifier,
    expectations: { reportData, nonce: challenge, trustedAttestationKeys: [], now },
    genuine,
    mutations: [
      ...['measurement', 'additional_data', 'user_data', 'cuid', 'encr_measurement_key', 'encr_request_nonce'].map(
        (name) => changed(name),
      ),
      changed('image_hdr_tags'),
      mixed('encr_measurement_key'),
      mixed('encr_request_nonce'),
      attested('another image', { tags: Buffer.alloc(208, 1) }),
      attested('machine whose key nobody knows', {
        additionalData: Buffer.concat([machine.hash, Buffer.alloc(32, 1)]),
      }),
      attested('no key of the machine', { additionalData: machine.hash }),
      { what: 'challenge of another session', evidence: genuine, against: { nonce: later } },
      { what: 'nonce that is no challenge', evidence: genuine, against: { nonce: 'a nonce' } },
      { what: 'another session', evidence: genuine, against: { reportData: Buffer.alloc(64, 8) } },
      { what: 'user data cut short', evidence: machine.attest(challenge, reportData.subarray(1)) },
      { what: 'challenge of another service', evidence: genuine, by: under({}, randomBytes(32)) },
      { what: 'initdata, which nothing binds', evidence: genuine, against: { initDataDigest: Buffer.alloc(32) } },
      await lists('host key that is revoked', [await revocationList(ibm.signer, [ibm.host])]),
      await lists('no revocation list', []),
      await lists('revocation list that has ended', [await revocationList(ibm.signer, [], new Date('2025-01-01'))]),
      { what: 'image that is not known', evidence: genuine, by: under({ imageHeaderTags: [Buffer.alloc(208, 1)] }) },
      { what: 'after the documents ended', evidence: genuine, against: { now: new Date('2035-01-01') } },
      { what: 'measurement cut short', evidence: { ...genuine, measurement: '' } },
      {
        what: 'user data that are too long',
        evidence: { ...genuine, user_data: Buffer.alloc(257).toString('base64') },
      },
    ],
  };
}
