import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonValue } from '@sealpod/protocol/json';
import { parseSeHeaderTags, parseSeRequest } from '@sealpod/protocol/se';
import { failures } from '@sealpod/protocol/verdict';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseCertificate } from '../../endorsements/certificate.ts';
import type { Verifier } from '../verifier.ts';
import { readSeConfig } from './config.ts';
import { seVerifier } from './index.ts';
import {
  type Issued,
  type IssueFaults,
  imageHeader,
  imageTags,
  issue,
  pem,
  revocationList,
  signerName,
  TestIbm,
  TestUltravisor,
} from './testing/mint.ts';
import { readSeTrust, type SeTrust } from './trust.ts';
import { measure } from './verify.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = randomBytes(64);
const challengeKey = randomBytes(32);
let ibm: TestIbm;
let trust: SeTrust;
let verifier: Verifier;
let machine: TestUltravisor;
let challenge: string;

beforeAll(async () => {
  ibm = await TestIbm.create();
  trust = await ibm.trust();
  verifier = under();
  machine = await TestUltravisor.of(ibm.host);
  challenge = ask(verifier);
});

function under(change: Partial<SeTrust> = {}, key = challengeKey, at = now): Verifier {
  return seVerifier({ ...trust, ...change }, key, () => at);
}

function ask(by: Verifier): string {
  return by.challenge?.('') ?? '';
}

async function refusals(value: JsonValue, by = verifier, against: object = {}): Promise<string[]> {
  try {
    const expectations = { reportData, nonce: challenge, trustedAttestationKeys: [], now, ...against };
    const { verdict } = await by.verify(value, expectations);
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw thrown;
    return [`thrown: ${thrown.code}`];
  }
}

function flipped(evidence: Record<string, string>, name: string, at: number): Record<string, string> {
  const bytes = Buffer.from(evidence[name] ?? '', 'base64');
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return { ...evidence, [name]: bytes.toString('base64') };
}

describe('a challenge of IBM Secure Execution', () => {
  it('is upstream’s, and only the machine of the host key document can open it', async () => {
    const request = JSON.parse(challenge) as Record<string, JsonValue>;
    expect(Object.keys(request)).toEqual([
      'request_blob',
      'measurement_size',
      'additional_size',
      'encr_measurement_key',
      'encr_request_nonce',
      'image_hdr_tags',
    ]);
    expect(request).toMatchObject({ measurement_size: 64, additional_size: 64 });
    const { requestBlob, imageHeaderTags } = parseSeRequest(challenge);
    expect(imageHeaderTags).toEqual(imageTags);
    // Header (48), flags and algorithm (16), key (160), one slot (80), secrets (80), tag (16).
    expect(requestBlob.length).toBe(400);
    expect(requestBlob.subarray(0, 16).toString('hex')).toBe('00000000000000000000010000000190');
    expect(requestBlob.subarray(36, 64).toString('hex')).toBe(
      '00000001000000000000005070000000000000000000000100000000',
    );
    expect(machine.open(requestBlob).measurementKey.length).toBe(64);
    const stranger = await TestUltravisor.of(await TestIbm.hostKey(ibm.signer));
    expect(() => stranger.open(requestBlob)).toThrow('no key slot');
    for (const at of [8, 20, 39, 47, 48, 60, 70, 240, 300, 330, 399]) {
      const changed = Buffer.from(requestBlob);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => machine.open(changed), `byte ${at}`).toThrow();
    }
  });

  it('holds a slot for each machine', async () => {
    const other = await TestIbm.hostKey(ibm.signer);
    const both = under({ hostKeyDocuments: [ibm.host, other].map(({ der }) => parseCertificate(der)) });
    const text = ask(both);
    for (const host of [ibm.host, other]) {
      const evidence = (await TestUltravisor.of(host)).attest(text, reportData);
      expect(await refusals(evidence, both, { nonce: text })).toEqual([]);
    }
  });
});

describe('evidence of IBM Secure Execution', () => {
  it('verifies, with upstream’s claims', async () => {
    const evidence = machine.attest(challenge, reportData);
    const { verdict, claims } = await verifier.verify(evidence, {
      reportData,
      nonce: challenge,
      trustedAttestationKeys: [],
      now,
    });
    expect(failures(verdict)).toEqual([]);
    const { sealpod, ...upstream } = claims;
    expect(sealpod).toMatchObject({ image_host_key_known: true });
    expect(upstream).toEqual({
      cuid: Buffer.from(evidence['cuid'] ?? '', 'base64').toString('hex'),
      report_data: reportData.toString('hex'),
      version: 256,
      image_phkh: machine.hash.toString('hex'),
      attestation_phkh: machine.hash.toString('hex'),
      tag: imageTags.subarray(-16).toString('hex'),
    });
    expect(await refusals(JSON.stringify(evidence))).toEqual([]);
    expect(await refusals(machine.attest(challenge, Buffer.concat([reportData, Buffer.from('more')])))).toEqual([]);
  });

  it('is measured as s390-tools measures (known answers of its test)', () => {
    const filled = (length: number, value: number): Buffer => Buffer.alloc(length, value);
    const items = {
      imageHeaderTags: Buffer.concat([filled(64, 1), filled(64, 2), filled(64, 3), filled(16, 4)]),
      configurationId: filled(16, 5),
      sealedMeasurementKey: Buffer.alloc(0),
      sealedRequestNonce: Buffer.alloc(0),
    };
    const key = filled(64, 0x41);
    const all = measure({ ...items, userData: filled(256, 7), additionalData: filled(128, 9) }, key, filled(16, 8));
    expect(all.toString('hex')).toBe(
      '88794c62cce7bcf26216deb3f48f13fea6374b6d7e35bcc5c2ce68121db6f45dfc8c171856463549408bf8e7d1aca11efad0a878af97dc9e21a1fc2a32f3a675',
    );
    const least = measure(
      { ...items, userData: Buffer.alloc(0), additionalData: Buffer.alloc(0) },
      key,
      Buffer.alloc(0),
    );
    expect(least.toString('hex')).toBe(
      'c5c34c93835d1ec23f5c2d778dfa20129b11b305601742cb2f38e0ed9894dcdb73fc8695ab6a8dbad0744073ddc81a5eaafa52e4a15af8deb8d761091922847f',
    );
  });

  it('is refused with any byte of any member changed', { timeout: 120_000 }, async () => {
    const genuine = machine.attest(challenge, reportData);
    const expected: Readonly<Record<string, string>> = {
      measurement: 'measurement: EV_SIGNATURE',
      additional_data: 'measurement: EV_SIGNATURE',
      user_data: 'measurement: EV_SIGNATURE',
      cuid: 'measurement: EV_SIGNATURE',
      encr_measurement_key: 'sealed measurement key: EV_NONCE_MISMATCH',
      encr_request_nonce: 'sealed measurement key: EV_NONCE_MISMATCH',
      image_hdr_tags: 'image header: RV_MISMATCH',
    };
    for (const [name, code] of Object.entries(expected)) {
      const { length } = Buffer.from(genuine[name] ?? '', 'base64');
      for (let at = 0; at < length; at += 1)
        expect(await refusals(flipped(genuine, name, at)), `${name} byte ${at}`).toContain(code);
    }
  });

  it('is refused for another session, key, image, machine or initdata', async () => {
    const genuine = machine.attest(challenge, reportData);
    const later = ask(verifier);
    expect(await refusals(genuine, verifier, { nonce: later })).toEqual([
      'challenge of the session: EV_NONCE_MISMATCH',
    ]);
    expect(await refusals(genuine, verifier, { nonce: 'a nonce' })).toEqual([
      'challenge of the session: EV_NONCE_MISMATCH',
    ]);
    expect(await refusals(genuine, verifier, { nonce: undefined })).toEqual([]);
    expect(await refusals(genuine, verifier, { reportData: randomBytes(64) })).toEqual([
      'report data: EV_BINDING_MISMATCH',
    ]);
    expect(await refusals(genuine, under({}, randomBytes(32)))).toEqual(['sealed measurement key: EV_NONCE_MISMATCH']);
    expect(await refusals(machine.attest(challenge, reportData, { tags: randomBytes(208) }))).toEqual([
      'image header: RV_MISMATCH',
    ]);
    const additionalData = Buffer.concat([machine.hash, randomBytes(32)]);
    expect(await refusals(machine.attest(challenge, reportData, { additionalData }))).toEqual([
      'host key of the machine: EV_CERT_CHAIN',
    ]);
    expect(await refusals(machine.attest(challenge, reportData, { additionalData: machine.hash }))).toEqual([
      'host key of the machine: EV_CERT_CHAIN',
    ]);
    expect(await refusals(machine.attest(challenge, reportData.subarray(1)))).toEqual([
      'report data: EV_BINDING_MISMATCH',
    ]);
  });

  it('is refused with parts of two challenges, which are both genuine', async () => {
    const other = JSON.parse(ask(verifier)) as Record<string, string>;
    const genuine = machine.attest(challenge, reportData);
    for (const name of ['encr_measurement_key', 'encr_request_nonce'])
      expect(await refusals({ ...genuine, [name]: other[name] ?? '' }, verifier, { nonce: undefined })).toEqual([
        'sealed measurement key: EV_NONCE_MISMATCH',
      ]);
  });

  it('finding 5: initdata that nothing binds is refused, not ignored', async () => {
    expect(
      await refusals(machine.attest(challenge, reportData), verifier, { initDataDigest: randomBytes(32) }),
    ).toEqual(['initdata: INITDATA_DIGEST']);
  });

  it('may be sealed as upstream does, with an RSA key', async () => {
    const measurementKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    const rsa = under({ measurementKey });
    const text = ask(rsa);
    expect(Buffer.from(String(JSON.parse(text).encr_measurement_key), 'base64').length).toBe(256);
    const evidence = machine.attest(text, reportData);
    expect(await refusals(evidence, rsa, { nonce: text })).toEqual([]);
    expect(await refusals(flipped(evidence, 'encr_measurement_key', 9), rsa, { nonce: undefined })).not.toEqual([]);
  });

  it('that is malformed is refused by name, whatever it is', async () => {
    const genuine = machine.attest(challenge, reportData);
    const names = Object.keys(genuine);
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.constantFrom(...names), async (value, name) => {
        expect(await refusals(value as JsonValue)).toEqual(['thrown: EV_FORMAT']);
        const [first = ''] = await refusals({ ...genuine, [name]: value } as JsonValue);
        expect(first).not.toBe('');
      }),
      { numRuns: 200 },
    );
    for (const name of ['measurement', 'cuid', 'image_hdr_tags'])
      expect(await refusals({ ...genuine, [name]: '' })).toEqual(['thrown: EV_FORMAT']);
    expect(await refusals({ ...genuine, user_data: Buffer.alloc(257).toString('base64') })).toEqual([
      'thrown: REQUEST_TOO_LARGE',
    ]);
  });
});

describe('a host key document', () => {
  const codeOf = (change: Partial<SeTrust>, at = now): string => {
    try {
      ask(under(change, challengeKey, at));
      return 'none';
    } catch (thrown) {
      return thrown instanceof SealpodError ? thrown.code : String(thrown);
    }
  };
  const documents = (...list: Issued[]): Pick<SeTrust, 'hostKeyDocuments'> => ({
    hostKeyDocuments: list.map(({ der }) => parseCertificate(der)),
  });
  const certificates = (...list: Issued[]): Pick<SeTrust, 'certificates'> => ({
    certificates: list.map(({ der }) => parseCertificate(der)),
  });

  it('is accepted by either name of the signing key’s town, and its names in another order', async () => {
    const parts = signerName.split(', ');
    for (const issuerName of [[...parts].reverse().join(', '), signerName.replace('Poughkeepsie', 'Armonk')]) {
      const faults: IssueFaults = { issuerName };
      expect(codeOf(documents(await TestIbm.hostKey(ibm.signer, faults)))).toBe('none');
    }
  });

  it('is refused by another issuer, on another curve, out of its time, or without its chain', async () => {
    const stranger = await TestIbm.create();
    expect(codeOf(documents(stranger.host))).toBe('EV_CERT_CHAIN');
    expect(codeOf({ ...documents(stranger.host), ...certificates(stranger.signer, stranger.authority) })).toBe(
      'EV_CERT_CHAIN',
    );
    expect(codeOf(documents(await TestIbm.hostKey(ibm.signer, { curve: 'P-256' })))).toBe('EV_CERT_CHAIN');
    const expired = await TestIbm.hostKey(ibm.signer, { notAfter: new Date('2025-01-01T00:00:00Z') });
    expect(codeOf(documents(expired))).toBe('EV_CERT_CHAIN');
    expect(codeOf({}, new Date('2023-01-01T00:00:00Z'))).toBe('EV_CERT_CHAIN');
    expect(codeOf({}, new Date('2035-01-01T00:00:00Z'))).toBe('EV_CERT_CHAIN');
    expect(codeOf(certificates(ibm.signer))).toBe('EV_CERT_CHAIN');
    expect(codeOf(certificates(ibm.authority))).toBe('EV_CERT_CHAIN');
    const named = await issue(ibm.authority, signerName.replace('Key Signing Service', 'Other'), []);
    const by = await TestIbm.hostKey(named);
    expect(codeOf({ ...documents(by), ...certificates(named, ibm.authority) })).toBe('EV_CERT_CHAIN');
    const direct = await issue(ibm.root, signerName, []);
    expect(codeOf({ ...documents(await TestIbm.hostKey(direct)), ...certificates(direct) })).toBe('EV_CERT_CHAIN');
    expect(codeOf(documents())).toBe('EV_COLLATERAL_UNAVAILABLE');
  });

  it('needs a current revocation list of its signing key, and none that names it or the keys above', async () => {
    const lists = (...list: Buffer[]): string => codeOf({ revocationLists: list });
    const stale = new Date('2025-01-01T00:00:00Z');
    const good = await revocationList(ibm.signer, []);
    expect(lists()).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(lists(await revocationList(ibm.signer, [], stale))).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(lists(await revocationList(ibm.authority, []))).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(lists(good, await revocationList(ibm.signer, [ibm.host]))).toBe('EV_CERT_REVOKED');
    expect(lists(good, await revocationList(ibm.authority, [ibm.signer]))).toBe('EV_CERT_REVOKED');
    expect(lists(good, await revocationList(ibm.root, [ibm.authority]))).toBe('EV_CERT_REVOKED');
    expect(lists(Buffer.from('no list'))).toBe('EV_FORMAT');
  });

  it('that was revoked leaves the others, and evidence of its machine is refused', async () => {
    const other = await TestIbm.hostKey(ibm.signer);
    const revoking = await revocationList(ibm.signer, [ibm.host]);
    const both = under({ ...documents(ibm.host, other), revocationLists: [revoking] });
    const text = ask(both);
    expect(() => machine.open(parseSeRequest(text).requestBlob)).toThrow('no key slot');
    const evidence = (await TestUltravisor.of(other)).attest(text, reportData);
    expect(await refusals(evidence, both, { nonce: text })).toEqual([]);
    expect(await refusals(machine.attest(challenge, reportData), both)).toEqual([
      'host key of the machine: EV_CERT_CHAIN',
    ]);
  });
});

describe('the header of an image', () => {
  it('is found at the start, at a page, and where the image’s metadata say', () => {
    const header = imageHeader(imageTags);
    const tags = (image: Buffer): string => parseSeHeaderTags(image).toString('hex');
    const expected = imageTags.toString('hex');
    expect(tags(header)).toBe(expected);
    const paged = Buffer.alloc(0x13000);
    header.copy(paged, 0x12000);
    expect(tags(paged)).toBe(expected);
    const described = Buffer.alloc(0x20000);
    described.write('SeImgLnx', 0xc000, 'latin1');
    described.writeBigUInt64BE(0x14000n, 0xc008);
    header.copy(described, 0x14000);
    expect(tags(described)).toBe(expected);
  });

  it('is refused elsewhere, of another version or size, and in any bytes', () => {
    const header = imageHeader(imageTags);
    const refused = (image: Buffer): boolean => {
      try {
        parseSeHeaderTags(image);
        return false;
      } catch (thrown) {
        return thrown instanceof SealpodError && thrown.code === 'EV_FORMAT';
      }
    };
    const change = (at: number, value: number): Buffer => {
      const changed = Buffer.from(header);
      changed.writeUInt32BE(value, at);
      return changed;
    };
    expect(refused(header.subarray(1))).toBe(true);
    expect(refused(Buffer.concat([Buffer.alloc(8), header]))).toBe(true);
    expect(refused(change(8, 0x200))).toBe(true);
    expect(refused(change(12, 0x1a0))).toBe(true);
    expect(refused(change(12, 0x281))).toBe(true);
    const described = Buffer.alloc(0x20000);
    described.write('SeImgLnx', 0xc000, 'latin1');
    described.writeBigUInt64BE(2n ** 63n, 0xc008);
    expect(refused(described)).toBe(true);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
        expect(refused(Buffer.from(bytes))).toBe(true);
      }),
    );
  });
});

describe('configuration', () => {
  const folder = mkdtempSync(join(tmpdir(), 'se-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('names folders whose files are read, PEM or DER', async () => {
    for (const name of ['hkds', 'certs', 'crls']) mkdirSync(join(folder, name));
    writeFileSync(join(folder, 'hkds/host.crt'), pem(ibm.host.der));
    writeFileSync(join(folder, 'certs/signer.crt'), ibm.signer.der);
    writeFileSync(join(folder, 'certs/authority.pem'), pem(ibm.authority.der));
    writeFileSync(join(folder, 'crls/signer.crl'), pem(await revocationList(ibm.signer, []), 'X509 CRL'));
    writeFileSync(join(folder, 'root.pem'), pem(ibm.root.der));
    writeFileSync(join(folder, 'hdr.bin'), imageHeader(imageTags));
    const value = {
      hostKeyDocuments: 'hkds',
      certificates: 'certs',
      revocationLists: 'crls',
      rootFile: 'root.pem',
      imageHeaders: ['hdr.bin'],
    };
    const read = (change: object): SeTrust =>
      readSeTrust(readSeConfig({ ...value, ...change } as JsonValue, (path) => join(folder, path)));
    const configured = seVerifier(read({}), challengeKey, () => now);
    const text = ask(configured);
    expect(await refusals(machine.attest(text, reportData), configured, { nonce: text })).toEqual([]);
    for (const wrong of [
      { other: 1 },
      { imageHeaders: [] },
      { imageHeaders: ['root.pem'] },
      { rootFile: 'none.pem' },
      { rootFile: 'certs/authority.pem' },
      { hostKeyDocuments: 'crls' },
      { hostKeyDocuments: 'none' },
      { measurementKeyFile: 'root.pem' },
      { certificates: 1 },
    ])
      expect(() => read(wrong), JSON.stringify(wrong)).toThrow(SealpodError);
  });
});
