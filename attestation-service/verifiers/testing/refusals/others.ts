import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { nitroVerifier } from '../../nitro/index.ts';
import { type NitroMembers, nitroRegister, nitroRegisters, TestNitro } from '../../nitro/testing/mint.ts';
import { sampleDeviceVerifier } from '../../sample/device.ts';
import { sampleVerifier } from '../../sample/index.ts';
import { issue, rootOf } from '../authority.ts';
import type { MutatedTee, Mutation } from './mutation.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = Buffer.alloc(48, 7);
const initDataDigest = Buffer.alloc(32, 9);

export async function nitroMutations(): Promise<MutatedTee> {
  const nitro = await TestNitro.create(reportData);
  const { root, zone, leaf } = nitro;
  const strange = await issue(undefined, root.subject, { authority: true });
  const foreign = await issue(strange, leaf.subject);
  const document = (...given: Parameters<TestNitro['document']>): JsonObject => ({
    document: nitro.document(...given).toString('base64'),
  });
  const changed = (what: string, changes: NitroMembers, key = leaf.key): Mutation => ({
    what,
    evidence: document(changes, key),
  });
  const genuine = document();
  const zeros = new Map([0, 1, 2].map((index) => [index, Buffer.alloc(48)]));
  return {
    tee: 'aws-nitro',
    verifier: nitroVerifier({ root: rootOf('test AWS', root), allowDebug: false }),
    expectations: { reportData, nonce: 'bm9uY2U=', trustedAttestationKeys: [], now },
    genuine,
    mutations: [
      changed('other user data', { user_data: Buffer.alloc(48, 8) }),
      changed('no user data', { user_data: null }),
      changed('empty user data', { user_data: Buffer.alloc(0) }),
      changed('user data that are too long', { user_data: Buffer.alloc(513) }),
      changed('another nonce', { nonce: Buffer.from('other') }),
      changed('signature of another key', {}, zone.key),
      { what: 'another algorithm', evidence: document({}, leaf.key, { algorithm: -7 }) },
      changed('registers of zeros: debug mode', { pcrs: zeros }),
      changed('no PCR1', { pcrs: nitroRegisters(0, 2) }),
      changed('another hash of registers', { digest: 'SHA256' }),
      changed('registers of another length', { pcrs: new Map([0, 1, 2].map((index) => [index, Buffer.alloc(32, 1)])) }),
      changed('register that there is not', { pcrs: new Map([[32, nitroRegister(0)]]) }),
      changed('time to come', { timestamp: now.getTime() + 600_000 }),
      { what: 'after the certificate ended', evidence: genuine, against: { now: new Date('2026-06-01T04:00:00Z') } },
      changed('chain without its middle', { cabundle: [root.der] }),
      changed('bundle without its root', { cabundle: [zone.der] }),
      changed('chain to another root', { certificate: foreign.der, cabundle: [strange.der] }, foreign.key),
      changed('no bundle', { cabundle: [] }),
      changed('certificate that is none', { certificate: Buffer.from('x') }),
      changed('no module', { module_id: null }),
      { what: 'initdata that no register has', evidence: genuine, against: { initDataDigest } },
      { what: 'another session', evidence: genuine, against: { reportData: Buffer.alloc(48, 8) } },
    ],
  };
}

const wrongValues: readonly (readonly [string, JsonValue])[] = [
  ['no text', 5],
  ['null', null],
  ['a list', []],
  ['an object', {}],
];

/** Evidence of the samples is JSON that anybody can write: all there is to refuse is another session, and another form. */
function samples(tee: string, more: readonly Mutation[]): Omit<MutatedTee, 'verifier' | 'expectations'> {
  const genuine: JsonObject = { svn: '1', report_data: reportData.toString('base64') };
  const session = (bytes: Buffer): JsonObject => ({ ...genuine, report_data: bytes.toString('base64') });
  return {
    tee,
    genuine,
    mutations: [
      { what: 'report data of another session', evidence: session(Buffer.alloc(48, 8)) },
      { what: 'report data cut short', evidence: session(reportData.subarray(1)) },
      { what: 'report data with a tail', evidence: session(Buffer.concat([reportData, Buffer.alloc(16)])) },
      { what: 'no report data', evidence: session(Buffer.alloc(0)) },
      { what: 'report data with one bit changed', evidence: session(Buffer.from(reportData).fill(6, 47)) },
      { what: 'another session', evidence: genuine, against: { reportData: Buffer.alloc(48, 8) } },
      { what: 'report data that are too long', evidence: session(Buffer.alloc(1025)) },
      { what: 'report data that are no base64', evidence: { ...genuine, report_data: '?' } },
      ...wrongValues.map(([what, value]) => ({
        what: `report data that are ${what}`,
        evidence: { ...genuine, report_data: value },
      })),
      ...wrongValues.map(([what, value]) => ({
        what: `version that is ${what}`,
        evidence: { ...genuine, svn: value },
      })),
      { what: 'evidence without a version', evidence: { report_data: genuine['report_data'] ?? null } },
      { what: 'evidence that is a list', evidence: [] },
      { what: 'evidence that is text', evidence: 'text' },
      ...more,
    ],
  };
}

export async function sampleMutations(): Promise<MutatedTee> {
  const expectations = { reportData, trustedAttestationKeys: [], now };
  return { ...samples('sample', []), verifier: sampleVerifier(), expectations };
}

export async function sampleDeviceMutations(): Promise<MutatedTee> {
  const expectations = { reportData, trustedAttestationKeys: [], now };
  const bound: Mutation = {
    what: 'initdata, which nothing binds',
    evidence: { svn: '1', report_data: reportData.toString('base64') },
    against: { initDataDigest },
  };
  return { ...samples('sampledevice', [bound]), verifier: sampleDeviceVerifier(), expectations };
}
