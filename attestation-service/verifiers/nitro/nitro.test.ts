import { createHash, randomBytes } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { parseNitroDocument } from '@sealpod/protocol/nitro';
import { failures } from '@sealpod/protocol/verdict';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { nitroRoot } from '../../endorsements/aws/certificates.ts';
import { issue, rootOf } from '../testing/authority.ts';
import { nitroVerifier } from './index.ts';
import { nitroRegister, nitroRegisters, TestNitro } from './testing/mint.ts';

const reportData = randomBytes(48);
const nonce = 'bm9uY2U=';
const now = new Date('2026-06-01T00:00:00Z');
const expectations = { reportData, nonce, trustedAttestationKeys: [], now };
let nitro: TestNitro;

beforeAll(async () => {
  nitro = await TestNitro.create(reportData);
});

const document = (...given: Parameters<TestNitro['document']>): Buffer => nitro.document(...given);

const evidence = (bytes: Buffer): JsonObject => ({ document: bytes.toString('base64') });

async function refusals(value: JsonObject, against: object = {}, allowDebug = false): Promise<string[]> {
  try {
    const verifier = nitroVerifier({ root: rootOf('test AWS', nitro.root), allowDebug });
    const { verdict } = await verifier.verify(value, { ...expectations, ...against });
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown: ${thrown.code}`];
    throw thrown;
  }
}

describe('evidence of AWS Nitro', () => {
  it('is accepted from a genuine enclave, tagged or not, and claims are its registers', async () => {
    const verifier = nitroVerifier({ root: rootOf('test AWS', nitro.root), allowDebug: false });
    const { verdict, claims } = await verifier.verify(evidence(document()), expectations);
    expect(failures(verdict)).toEqual([]);
    expect(claims).toMatchObject({
      module_id: 'i-1-enc1',
      debug: false,
      pcr0: nitroRegister(0).toString('hex'),
      report_data: reportData.toString('hex'),
    });
    const tagged = document({}, undefined, { tagged: true });
    expect(await refusals(evidence(tagged))).toEqual([]);
    expect(await refusals(evidence(document({ nonce: Buffer.from(nonce, 'base64') })))).toEqual([]);
    // Members of no bytes stand for absent ones in documents of some libraries.
    const empty = Buffer.alloc(0);
    expect(await refusals(evidence(document({ nonce: empty, public_key: empty })))).toEqual([]);
    expect(await refusals(evidence(document({ user_data: empty })))).toEqual(['report data: EV_BINDING_MISMATCH']);
    const absent = document({ nonce: undefined, public_key: undefined });
    expect(await refusals(evidence(absent))).toEqual([]);
  });

  it('is held against the root whose fingerprint AWS publishes', () => {
    expect(nitroRoot.anchors[0]?.x509.fingerprint256).toBe(
      '64:1A:03:21:A3:E2:44:EF:E4:56:46:31:95:D6:06:31:7E:D7:CD:CC:3C:17:56:E0:98:93:F3:C6:8F:79:BB:5B',
    );
  });

  const zeros = new Map([0, 1, 2].map((number) => [number, Buffer.alloc(48)]));
  const cases: [string, () => Buffer | Promise<Buffer>, string[], object?][] = [
    ['other report data', () => document({ user_data: randomBytes(48) }), ['report data: EV_BINDING_MISMATCH']],
    ['no report data', () => document({ user_data: null }), ['report data: EV_BINDING_MISMATCH']],
    ['another nonce', () => document({ nonce: Buffer.from('other') }), ['nonce: EV_NONCE_MISMATCH']],
    ['the signature of another key', () => document({}, nitro.zone.key), ['document signature: EV_SIGNATURE']],
    ['another algorithm', () => document({}, undefined, { algorithm: -7 }), ['document signature: EV_SIGNATURE']],
    ['registers of zeros: debug mode', () => document({ pcrs: zeros }), ['debug mode: EV_DEBUG_ON']],
    ['no PCR1', () => document({ pcrs: nitroRegisters(0, 2) }), ['registers: EV_FORMAT']],
    ['another hash of registers', () => document({ digest: 'SHA256' }), ['register hash: EV_FORMAT']],
    [
      'registers of another length',
      () => document({ pcrs: new Map([0, 1, 2].map((number) => [number, Buffer.alloc(32, 1)])) }),
      ['register hash: EV_FORMAT'],
    ],
    [
      'a register that there is not',
      () => document({ pcrs: new Map([[32, nitroRegister(0)]]) }),
      ['thrown: EV_FORMAT'],
    ],
    ['a time to come', () => document({ timestamp: now.getTime() + 600_000 }), ['timestamp: EV_FORMAT']],
    [
      'an expired certificate',
      () => document(),
      ['certificate chain: EV_CERT_CHAIN'],
      { now: new Date('2026-06-01T04:00:00Z') },
    ],
    [
      'a chain without its middle',
      () => document({ cabundle: [nitro.root.der] }),
      ['certificate chain: EV_CERT_CHAIN'],
    ],
    ['a bundle without its root', () => document({ cabundle: [nitro.zone.der] }), ['root certificate: EV_CERT_CHAIN']],
    [
      'a chain to another root',
      async () => {
        const other = await issue(undefined, 'CN=aws.nitro-enclaves', { authority: true });
        const own = await issue(other, 'CN=i-1');
        return document({ certificate: own.der, cabundle: [other.der] }, own.key);
      },
      ['certificate chain: EV_CERT_CHAIN', 'root certificate: EV_CERT_CHAIN'],
    ],
    ['no bundle', () => document({ cabundle: [] }), ['thrown: EV_FORMAT']],
    ['a certificate that is none', () => document({ certificate: Buffer.from('x') }), ['thrown: EV_FORMAT']],
    ['user data that is too long', () => document({ user_data: Buffer.alloc(513) }), ['thrown: EV_FORMAT']],
    ['no module', () => document({ module_id: undefined }), ['thrown: EV_FORMAT']],
    [
      'initdata that no register has',
      () => document(),
      ['initdata: INITDATA_DIGEST'],
      { initDataDigest: nitroRegister(9) },
    ],
  ];
  it.each(cases)('is refused with %s', async (_, make, expected, against = {}) => {
    expect(await refusals(evidence(await make()), against)).toEqual(expected);
  });

  it('binds initdata that was extended into PCR16', async () => {
    const digest = createHash('sha256').update('initdata').digest();
    const extended = createHash('sha384').update(Buffer.alloc(48)).update(digest).digest();
    const pcrs = nitroRegisters(0, 1, 2).set(16, extended);
    expect(await refusals(evidence(document({ pcrs })), { initDataDigest: digest })).toEqual([]);
  });

  it('of debug mode passes by switch only, and claims say so', async () => {
    expect(await refusals(evidence(document({ pcrs: zeros })), {}, true)).toEqual([]);
    const verifier = nitroVerifier({ root: rootOf('test AWS', nitro.root), allowDebug: true });
    const { claims } = await verifier.verify(evidence(document({ pcrs: zeros })), expectations);
    expect(claims['debug']).toBe(true);
  });

  it('is refused at every changed byte', async () => {
    const whole = document();
    for (let at = 0; at < whole.length; at += 37) {
      const changed = Buffer.from(whole);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(await refusals(evidence(changed)), `byte ${at}`).not.toEqual([]);
    }
  });

  it('is parsed to a value or an error of the service’s own, whatever the bytes', () => {
    const whole = document();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.nat(255), (bytes, at, value) => {
        const changed = Buffer.from(whole);
        changed[at % changed.length] = value;
        for (const input of [bytes, changed]) {
          try {
            parseNitroDocument(input);
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(SealpodError);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});
