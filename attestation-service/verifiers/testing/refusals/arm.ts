import { generateKeyPairSync } from 'node:crypto';
import { type CborValue, encodeCbor } from '@sealpod/protocol/cose';
import { cborTagged } from '@sealpod/protocol/cose/testing';
import { SealpodError } from '@sealpod/protocol/errors';
import { regularise } from '@sealpod/protocol/rcar';
import { ccaVerifier } from '../../cca/index.ts';
import type { CcaStores } from '../../cca/stores.ts';
import { ccaEvidence, type MintFaults, TestPlatform } from '../../cca/testing/mint.ts';
import type { MutatedTee, Mutation } from './mutation.ts';

const reportData = Buffer.alloc(48, 7);
const initDataDigest = Buffer.alloc(32, 9);

export async function ccaMutations(): Promise<MutatedTee> {
  const platform = new TestPlatform();
  const mint = (faults: MintFaults = {}, by = platform): Buffer =>
    by.token(regularise(reportData, 64), regularise(initDataDigest, 64), faults);
  const set =
    (label: number, value: CborValue) =>
    (claims: Map<CborValue, CborValue>): void =>
      void claims.set(label, value);
  const token = (what: string, faults: MintFaults): Mutation => ({ what, evidence: ccaEvidence(mint(faults)) });
  const platformWith = (what: string, label: number, value: CborValue, faults: MintFaults = {}): Mutation =>
    token(`platform token with ${what}`, { ...faults, platform: set(label, value) });
  const realmWith = (what: string, label: number, value: CborValue, faults: MintFaults = {}): Mutation =>
    token(`realm token with ${what}`, { ...faults, realm: set(label, value) });
  const other = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey;
  const under = (stores: Partial<CcaStores> = {}) =>
    ccaVerifier({ allowNonCcaDebug: false }, { stores: () => platform.stores(stores) });
  const genuine = ccaEvidence(mint());
  const components =
    (edit: (list: Map<CborValue, CborValue>[]) => void) =>
    (claims: Map<CborValue, CborValue>): void =>
      edit(claims.get(2399) as Map<CborValue, CborValue>[]);
  const parts = cborTagged(399, encodeCbor(new Map<CborValue, CborValue>([[44234, Buffer.alloc(4)]])));
  const away = (): never => {
    throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'the store cannot be used');
  };
  return {
    tee: 'cca',
    verifier: under(),
    expectations: { reportData, initDataDigest, trustedAttestationKeys: [], now: new Date('2026-06-01T00:00:00Z') },
    genuine,
    mutations: [
      token('platform token signed by another key', { platformKey: other }),
      token('realm token signed by another key', { realmKey: other }),
      token('algorithm that does not fit its key', { options: { algorithm: -7 } }),
      platformWith('a challenge that is of another realm key', 10, Buffer.alloc(32, 1)),
      platformWith('an instance that is not enrolled', 256, Buffer.concat([Buffer.from([1]), Buffer.alloc(32, 1)])),
      platformWith('another implementation', 2396, Buffer.alloc(32, 1)),
      platformWith('another configuration', 2401, Buffer.from('00', 'hex')),
      platformWith('the lifecycle provisioning', 2395, 0x2000),
      platformWith('the lifecycle debug', 2395, 0x4000),
      platformWith('the lifecycle recoverable debug', 2395, 0x5001),
      platformWith('the lifecycle decommissioned', 2395, 0x6000),
      platformWith('an unknown profile', 265, 'tag:arm.com,2030:x'),
      platformWith('an unknown hash', 2402, 'md5'),
      platformWith('no components', 2399, []),
      platformWith('another client', 2394, 2, { profile: '2024' }),
      token('platform token with another measurement of a component', {
        platform: components(([first]) => void first?.set(2, Buffer.alloc(32, 1))),
      }),
      token('platform token with another signer of a component', {
        platform: components(([first]) => void first?.set(5, Buffer.alloc(32, 1))),
      }),
      token('platform token without a component', { platform: components((list) => void list.pop()) }),
      token('platform token with a component twice', {
        platform: components((list) => void list.push(new Map(list[0]))),
      }),
      realmWith('another challenge', 10, Buffer.alloc(64, 1)),
      realmWith('a short challenge', 10, Buffer.alloc(32, 7)),
      realmWith('other initdata', 44235, Buffer.alloc(64, 1)),
      realmWith('a weak hash of its key', 44240, 'md5'),
      realmWith('another hash of its key', 44240, 'sha-384'),
      realmWith('a key off its curve', 44237, Buffer.concat([Buffer.from([4]), Buffer.alloc(96, 1)])),
      realmWith('another profile', 265, 'tag:arm.com,2030:x', { profile: '2023' }),
      realmWith('another memory encryption policy', 44243, 'none', { profile: '2024' }),
      { what: 'token of a platform that is not enrolled', evidence: ccaEvidence(mint({}, new TestPlatform())) },
      { what: 'no reference values', evidence: genuine, by: under({ platforms: [] }) },
      { what: 'no stores', evidence: genuine, by: ccaVerifier({ allowNonCcaDebug: false }, { stores: away }) },
      { what: 'no session', evidence: genuine, against: { reportData: undefined } },
      { what: 'token without its realm', evidence: ccaEvidence(parts) },
      { what: 'bytes behind the token', evidence: ccaEvidence(Buffer.concat([mint(), Buffer.alloc(1)])) },
    ],
  };
}
