import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { parseHygonAuthority } from '@sealpod/protocol/hygon';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  cachedHygonSource,
  type HygonEndorsementSource,
  hygonFolder,
  hygonService,
} from '../../endorsements/hygon/sources.ts';
import type { Verifier } from '../verifier.ts';
import { readHygonConfig } from './config.ts';
import { csvVerifier, dcuVerifier, hygonRoot } from './index.ts';
import { verifySm2 } from './sm2.ts';
import { type CertificateFaults, csvEvidence, dcuJson, dcuReport, newKey, sm3Log, TestHygon } from './testing/mint.ts';

const hygon = new TestHygon();
const reportData = randomBytes(48);
const fields = { reportData: regularise(reportData, 64) };
const expectations = { reportData, trustedAttestationKeys: [], now: new Date('2026-06-01T00:00:00Z') };
const folder = mkdtempSync(join(tmpdir(), 'hygon-'));
afterAll(() => rmSync(folder, { recursive: true }));

const chain = { hsk: hygon.hsk(), cek: hygon.cek() };
const pek = hygon.pek();
const verifier = csvVerifier(hygon.rootCertificate(), []);

/** Codes of the checks that failed, and the code of an exception where there is one. */
async function refusals(value: JsonValue, by: Verifier = verifier, against: object = {}): Promise<string[]> {
  try {
    const { verdict } = await by.verify(value, { ...expectations, ...against });
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (!(thrown instanceof SealpodError)) throw thrown;
    return [`thrown: ${thrown.code}`];
  }
}

describe('SM2', () => {
  it('verifies Hygon’s root under itself, and the signature of another implementation', () => {
    const [signature] = hygonRoot.signatures;
    expect(signature && verifySm2(hygonRoot.key, hygonRoot.signed, signature.signature)).toBe(true);
  });

  it('verifies the example of GB/T 32918.5 (appendix A.2)', () => {
    const hex = (text: string): Buffer => Buffer.from(text, 'hex');
    const key = {
      x: hex('09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020'),
      y: hex('ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13'),
      identity: Buffer.from('1234567812345678'),
    };
    const signature = {
      r: hex('f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3'),
      s: hex('b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa'),
    };
    expect(verifySm2(key, Buffer.from('message digest'), signature)).toBe(true);
    expect(verifySm2(key, Buffer.from('message digesT'), signature)).toBe(false);
    expect(
      verifySm2({ ...key, identity: Buffer.from('1234567812345679') }, Buffer.from('message digest'), signature),
    ).toBe(false);
    const zero = Buffer.alloc(32);
    expect(verifySm2(key, Buffer.from('message digest'), { r: zero, s: zero })).toBe(false);
    expect(verifySm2({ ...key, x: zero }, Buffer.from('message digest'), signature)).toBe(false);
    expect(verifySm2(key, Buffer.from('message digest'), { r: Buffer.alloc(32, 0xff), s: signature.s })).toBe(false);
  });
});

describe('a CSV report', () => {
  it.each([1, 2] as const)('of version %i verifies, with upstream’s claims', async (version) => {
    const evidence = csvEvidence(hygon.report(version, fields), pek, { version, chain });
    const { verdict, claims } = await verifier.verify(evidence, expectations);
    expect(failures(verdict)).toEqual([]);
    const { sealpod, anonce, ...rest } = claims;
    expect(sealpod).toEqual({ chip_certificates: 'evidence', serial_number_proved: false });
    expect(typeof anonce).toBe(version === 1 ? 'string' : 'undefined');
    const zeros = '00'.repeat(32);
    expect(rest).toEqual({
      version: `${version}`,
      policy: {
        nodbg: 1,
        noks: 0,
        es: 1,
        nosend: 0,
        domain: 0,
        csv: 0,
        csv3: 1,
        asid_reuse: 0,
        hsk_version: 0,
        cek_version: 0,
        api_major: 0,
        api_minor: 0,
      },
      user_pubkey_digest: zeros,
      vm_id: zeros.slice(0, 32),
      vm_version: zeros.slice(0, 32),
      report_data: regularise(reportData, 64).toString('hex'),
      mnonce: zeros.slice(0, 32),
      measure: 'aa'.repeat(32),
      sig_usage: '02100000',
      sig_algo: '04000000',
      serial_number: 'KPA64911240507',
      ...(version === 1
        ? {}
        : {
            build: 1900,
            rtmr_version: 0,
            reserved0: '00'.repeat(14),
            rtmr0: zeros,
            rtmr1: zeros,
            rtmr2: zeros,
            rtmr3: zeros,
            rtmr4: zeros,
            reserved1: '00'.repeat(656),
          }),
    });
  });

  it('has an event log that replays with SM3 to the registers of the report', async () => {
    const genuine: Parameters<typeof sm3Log>[0] = [
      [1, 'kernel'],
      [2, 'command line'],
      [2, 'initrd'],
      [4, 'image'],
    ];
    const { log, registers } = sm3Log(genuine);
    const rtmrs = [0, 1, 2, 3, 4].map((index) => registers.get(index) ?? Buffer.alloc(32));
    const page = hygon.report(2, { ...fields, rtmrs });
    const { verdict, claims } = await verifier.verify(csvEvidence(page, pek, { chain, log }), expectations);
    expect(failures(verdict)).toEqual([]);
    const events = claims['uefi_event_logs'] as JsonObject[];
    expect(events.map(({ index }) => index)).toEqual([1, 2, 2, 4]);
    expect(events[0]).toMatchObject({
      digest_matches_event: true,
      digests: [{ alg: 'SM3' }],
      event: Buffer.from('kernel').toString('base64'),
    });
    const more = sm3Log([...genuine, [0, 'launch']]).log;
    const told = await verifier.verify(csvEvidence(page, pek, { chain, log: more }), expectations);
    expect(failures(told.verdict)).toEqual([]);
    expect(told.claims['uefi_event_logs']).toEqual(events);

    const refused = (events: Parameters<typeof sm3Log>[0]): Promise<string[]> =>
      refusals(csvEvidence(page, pek, { chain, log: sm3Log(events).log }));
    expect(await refused(genuine)).toEqual([]);
    expect(await refused(genuine.slice(1))).toEqual(['RTMR 1: EV_EVENTLOG_REPLAY']);
    expect(await refused([...genuine, [3, 'more']])).toEqual(['RTMR 3: EV_EVENTLOG_REPLAY']);
    expect(await refused([...genuine, [5, 'beyond']])).toEqual(['registers: EV_EVENTLOG_REPLAY']);
    expect(await refused([])).toEqual([1, 2, 4].map((register) => `RTMR ${register}: EV_EVENTLOG_REPLAY`));
    expect(await refusals(csvEvidence(page, pek, { chain, log: log.subarray(0, 90) }))).toEqual(['thrown: EV_FORMAT']);
  });

  it('finding 5: initdata that nothing binds is refused, not ignored', async () => {
    const evidence = csvEvidence(hygon.report(2, fields), pek, { chain });
    expect(await refusals(evidence, verifier, { initDataDigest: randomBytes(32) })).toEqual([
      'initdata: INITDATA_DIGEST',
    ]);
  });

  const other = newKey('TEST-OTHER');
  const faults: readonly [
    string,
    { hsk?: CertificateFaults; cek?: CertificateFaults; pek?: CertificateFaults },
    string,
  ][] = [
    ['a signing key by another root', { hsk: { by: other } }, 'signing key (HSK): EV_CERT_CHAIN'],
    ['a signing key of another use', { hsk: { usage: 0x1004 } }, 'signing key (HSK): EV_CERT_CHAIN'],
    [
      'a signing key of another issuer',
      { hsk: { signer: randomBytes(16) } },
      'issuer of the signing key: EV_CERT_CHAIN',
    ],
    ['a chip key by another', { cek: { by: other } }, 'chip key (CEK): EV_CERT_CHAIN'],
    ['a chip key of another use', { cek: { usage: 0x1002 } }, 'chip key (CEK): EV_CERT_CHAIN'],
    ['a chip key signed as an owner’s', { cek: { signatureUsage: 0x1001 } }, 'chip key (CEK): EV_CERT_CHAIN'],
    ['a chip key by another algorithm', { cek: { signatureAlgorithm: 5 } }, 'chip key (CEK): EV_CERT_CHAIN'],
    ['a platform key by another', { pek: { by: other } }, 'platform key (PEK): EV_CERT_CHAIN'],
    ['a platform key of another use', { pek: { usage: 0x1003 } }, 'platform key (PEK): EV_CERT_CHAIN'],
    ['a platform key signed as an owner’s', { pek: { signatureUsage: 0x1001 } }, 'platform key (PEK): EV_CERT_CHAIN'],
  ];
  it.each(faults)('with %s is refused', async (_, change, expected) => {
    const evidence = csvEvidence(hygon.report(2, fields), hygon.pek(change.pek), {
      chain: { hsk: hygon.hsk(change.hsk), cek: hygon.cek(change.cek) },
    });
    const refused = await refusals(evidence);
    expect(refused).toContain(expected);
  });

  it.each<[string, (page: Buffer) => void, string]>([
    ['other report data', (page) => page.writeUInt8((page[0x40] ?? 0) ^ 1, 0x40), 'report data: EV_BINDING_MISMATCH'],
    ['report data with a tail', (page) => page.writeUInt8(1, 0x7f), 'report data: EV_BINDING_MISMATCH'],
    [
      'signed by an owner, it says',
      (page) => page.writeUInt32LE(0x1001, 0xb4),
      'signing key of the report: EV_SIGNATURE',
    ],
    ['another algorithm', (page) => page.writeUInt32LE(5, 0xb8), 'signing key of the report: EV_SIGNATURE'],
  ])('that is signed but has %s is refused', async (_, change, expected) => {
    for (const version of [1, 2] as const) {
      const page = hygon.report(version, fields, change);
      expect(await refusals(csvEvidence(page, pek, { version, chain }))).toEqual([expected]);
    }
  });

  it('is refused with signed bytes changed, at any place, and with a signature changed', {
    timeout: 300_000,
  }, async () => {
    for (const version of [1, 2] as const) {
      const genuine = hygon.report(version, fields);
      const end = version === 1 ? 0xc0 : 0x400;
      // Every second byte of the fields, and of the long reserved part some; then both numbers of the signature.
      const fieldBytes = [...Array(Math.min(end, 0x170)).keys()].filter((at) => at % 2 === version % 2);
      const places = [...fieldBytes, 0x200, 0x3ff, end, end + 31, end + 72, end + 40];
      for (const at of places.filter((place) => version === 2 || place < 0xc0 + 144)) {
        const changed = Buffer.from(genuine);
        changed[at] = (changed[at] ?? 0) ^ 1;
        expect(await refusals(csvEvidence(changed, pek, { version, chain })), `byte ${at}`).not.toEqual([]);
      }
    }
  });

  it('is refused with signed bytes of a certificate changed, at any place', { timeout: 300_000 }, async () => {
    const page = hygon.report(2, fields);
    const flip = (bytes: Buffer, at: number): Buffer => {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      return changed;
    };
    const changed = (name: string, at: number): JsonObject =>
      csvEvidence(page, name === 'pek' ? flip(pek, at) : pek, {
        chain: {
          hsk: name === 'hsk' ? flip(chain.hsk, at) : chain.hsk,
          cek: name === 'cek' ? flip(chain.cek, at) : chain.cek,
        },
      });
    for (const [name, end] of [
      ['hsk', 576],
      ['cek', 1044],
      ['pek', 1044],
    ] as const)
      for (let at = 0; at < end; at += at < 0x1d4 ? 11 : 97)
        expect(await refusals(changed(name, at)), `${name} byte ${at}`).not.toEqual([]);
  });

  it('of another platform is refused under this one’s certificates', async () => {
    const stranger = new TestHygon();
    expect(await refusals(csvEvidence(stranger.report(2, fields), pek, { chain }))).toEqual([
      'report signature: EV_SIGNATURE',
    ]);
    expect(await refusals(csvEvidence(stranger.report(2, fields), stranger.pek(), { chain }))).toEqual([
      'platform key (PEK): EV_CERT_CHAIN',
    ]);
    const all = { hsk: stranger.hsk(), cek: stranger.cek() };
    expect(await refusals(csvEvidence(stranger.report(2, fields), stranger.pek(), { chain: all }))).toEqual([
      'signing key (HSK): EV_CERT_CHAIN',
      'issuer of the signing key: EV_CERT_CHAIN',
    ]);
  });

  it('that is malformed is refused by name, whatever it is', async () => {
    const genuine = csvEvidence(hygon.report(2, fields), pek, { chain });
    const report = genuine['attestation_report'] as JsonObject;
    for (const change of [
      { attestation_report: { ...report, flags: 2 } },
      { attestation_report: { ...report, magic: [...Buffer.alloc(16, 1)] } },
      { attestation_report: { ...report, data: [1, 2, 3] } },
      { cert_chain: {} },
      { cert_chain: { ...(genuine['cert_chain'] as JsonObject), hsk_cek: {} } },
      { serial_number: [...Buffer.from('../../etc')] },
      { serial_number: [0, 65] },
      { serial_number: [] },
      { cc_eventlog: 'no base64' },
    ])
      expect(await refusals({ ...genuine, ...change } as JsonValue), JSON.stringify(change).slice(0, 60)).toEqual([
        'thrown: EV_FORMAT',
      ]);
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.constantFrom(...Object.keys(genuine)), async (value, name) => {
        expect(await refusals(value as JsonValue)).toEqual(['thrown: EV_FORMAT']);
        const refused = await refusals({ ...genuine, [name]: value } as JsonValue);
        expect(refused).toEqual(name === 'cc_eventlog' && value === null ? [] : ['thrown: EV_FORMAT']);
      }),
      { numRuns: 100 },
    );
  });
});

describe('the certificates of a chip', () => {
  const both = Buffer.concat([chain.hsk, chain.cek]);
  const evidence = csvEvidence(hygon.report(2, fields), pek);
  const under = (...sources: HygonEndorsementSource[]): Verifier => csvVerifier(hygon.rootCertificate(), sources);

  it('come from a folder, whose serial number is proved by them', async () => {
    mkdirSync(join(folder, 'hsk_cek/KPA64911240507'), { recursive: true });
    writeFileSync(join(folder, 'hsk_cek/KPA64911240507/hsk_cek.cert'), both);
    const { verdict, claims } = await under(hygonFolder(folder)).verify(evidence, expectations);
    expect(failures(verdict)).toEqual([]);
    expect(claims['sealpod']).toEqual({ chip_certificates: `folder ${folder}`, serial_number_proved: true });
    expect(await refusals(evidence, under())).toEqual(['certificates of the chip: EV_COLLATERAL_UNAVAILABLE']);
    const elsewhere = csvEvidence(hygon.report(2, fields), pek, { serialNumber: 'KPA0' });
    expect(await refusals(elsewhere, under(hygonFolder(folder)))).toEqual([
      'certificates of the chip: EV_COLLATERAL_UNAVAILABLE',
    ]);
  });

  it('come from the service, once for many, and are kept; overload and lies are refusals', async () => {
    let answers: (readonly [status: number, body: Buffer])[] = [];
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url ?? '');
      const [status, body] = answers.shift() ?? [200, both];
      response.writeHead(status).end(body);
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    const storage = await openStorage({ path: join(folder, 'db.sqlite') });
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      const service = hygonService(url, { retries: 1, pauseMs: 1 });
      const cached = cachedHygonSource(service, storage, () => new Date());
      const many = [1, 2, 3, 4].map(() => refusals(evidence, under(cached)));
      expect(await Promise.all(many)).toEqual([[], [], [], []]);
      expect(await refusals(evidence, under(cached))).toEqual([]);
      expect(asked).toEqual(['/hsk_cek?snumber=KPA64911240507']);

      const refused = async (...next: typeof answers): Promise<string[]> => {
        answers = next;
        return refusals(evidence, under(service));
      };
      const away = ['certificates of the chip: EV_COLLATERAL_UNAVAILABLE'];
      expect(await refused([429, both], [200, both])).toEqual([]);
      expect(await refused([429, both], [503, both])).toEqual(away);
      expect(await refused([404, both])).toEqual(away);
      expect(await refused([200, both.subarray(1)])).toEqual(['certificates of the chip: EV_FORMAT']);
      expect(await refused([200, Buffer.alloc(both.length)])).toEqual(['certificates of the chip: EV_FORMAT']);
      expect(await refused([200, Buffer.alloc(100_000)], [200, Buffer.alloc(100_000)])).toEqual(away);
      const later = new Date(Date.now() + 31 * 86_400_000);
      answers = [
        [500, both],
        [500, both],
      ];
      expect(await refusals(evidence, under(cachedHygonSource(service, storage, () => later)))).toEqual([]);
    } finally {
      server.close();
      server.closeAllConnections();
      await storage.close();
    }
  });

  it('have a configuration whose members are all known', () => {
    const read = (value: JsonValue): unknown => readHygonConfig(value, 'csv', (path) => `/etc/${path}`);
    expect(read({ sources: [{ type: 'offline', folder: 'hygon' }, { type: 'service' }] })).toEqual({
      sources: [{ type: 'offline', folder: '/etc/hygon' }, { type: 'service' }],
    });
    for (const wrong of [
      { other: 1 },
      { sources: 1 },
      { sources: [{ type: 'other' }] },
      { sources: [{ type: 'offline' }] },
      { sources: [{ type: 'service', url: 'file:///x' }] },
      { sources: [{ type: 'service', other: 1 }] },
    ])
      expect(() => read(wrong as JsonValue), JSON.stringify(wrong)).toThrow(SealpodError);
  });
});

describe('reports of accelerators', () => {
  const serials = ['DCU0000000000001', 'DCU0000000000002'];
  const source: HygonEndorsementSource = {
    name: 'test',
    chipChain: (serial) =>
      Promise.resolve(serials.includes(serial) ? Buffer.concat([chain.hsk, chain.cek]) : undefined),
  };
  const dcu = dcuVerifier(hygon.rootCertificate(), [source]);
  const reports = (...list: JsonObject[]): JsonObject => ({ attestation_reports: list });
  const report = (serial = serials[0] ?? '', change?: (body: Buffer) => void): JsonObject =>
    dcuReport(hygon, serial, regularise(reportData, 64), change);

  it('verify, each a submodule with upstream’s claims', async () => {
    const { verdict, submodules } = await dcu.verify(reports(report(), report(serials[1])), expectations);
    expect(failures(verdict)).toEqual([]);
    expect(submodules?.map(({ teeClass }) => teeClass)).toEqual(['dcu', 'dcu']);
    expect(submodules?.[0]?.claims).toEqual({
      body: {
        version: 1,
        chip_id: Buffer.from(serials[0] ?? '').toString('hex'),
        user_data: regularise(reportData, 64).toString('hex'),
        measure: 'bb'.repeat(32),
        reserved: '00'.repeat(128),
        sig_usage: '1004',
        sig_algo: '4',
      },
      report_data: regularise(reportData, 64).toString('hex'),
    });
  });

  it('are refused by name where they are not what they should be', async () => {
    expect(await refusals(reports(report(), report()), dcu)).toEqual(['distinct accelerators: EV_PART_MIX']);
    expect(await refusals(reports(report('DCU9')), dcu)).toEqual([
      'certificates of the chip: EV_COLLATERAL_UNAVAILABLE',
    ]);
    const user = (body: Buffer): number => body.writeUInt8((body[20] ?? 0) ^ 1, 20);
    expect(await refusals(reports(report(), report(serials[1], user)), dcu)).toEqual([
      'report data: EV_BINDING_MISMATCH',
    ]);
    expect(await refusals(reports(report(serials[0], (body) => body.writeUInt32LE(0x1002, 244))), dcu)).toEqual([
      'signing key of the report: EV_SIGNATURE',
    ]);
    expect(await refusals(reports(report(serials[0], (body) => body.writeUInt32LE(9, 248))), dcu)).toEqual([
      'signing key of the report: EV_SIGNATURE',
    ]);
    expect(await refusals(reports(report()), dcu, { reportData: undefined })).toEqual([
      'report data: EV_BINDING_MISMATCH',
    ]);
    expect(await refusals(reports(report()), dcu, { initDataDigest: randomBytes(32) })).toEqual([
      'initdata: INITDATA_DIGEST',
    ]);
    const foreign = dcuVerifier(new TestHygon().rootCertificate(), [source]);
    expect(await refusals(reports(report()), foreign)).toContain('signing key (HSK): EV_CERT_CHAIN');
    for (const wrong of [
      reports(),
      { attestation_reports: new Array(17).fill(report()) as JsonObject[] },
      {},
      null,
      [],
    ])
      expect(await refusals(wrong as JsonValue, dcu)).toEqual(['thrown: EV_FORMAT']);
  });

  it('are refused with signed bytes changed, at any place', { timeout: 300_000 }, async () => {
    const genuine = Buffer.alloc(252);
    const signed = report(serials[0], (body) => void body.copy(genuine));
    const { sig } = signed as { sig: { r: number[]; s: number[] } };
    const signature = Buffer.from([...sig.r, ...sig.s]);
    expect(await refusals(reports(dcuJson(genuine, signature)), dcu)).toEqual([]);
    for (let at = 0; at < 252; at += 3) {
      const changed = Buffer.from(genuine);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(await refusals(reports(dcuJson(changed, signature)), dcu), `byte ${at}`).not.toEqual([]);
    }
    for (const at of [0, 31, 40, 72, 103, 143]) {
      const changed = Buffer.from(signature);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(await refusals(reports(dcuJson(genuine, changed)), dcu)).toEqual(['report signature: EV_SIGNATURE']);
    }
  });
});

const vectors = vectorPath('csv');
describe.skipIf(!existsSync(vectors))('published CSV evidence (skipped where the vectors are absent)', () => {
  it('has the root that is built in, and verifies but for the certificates of its chip, which it does not bring', async () => {
    expect(parseHygonAuthority(readFileSync(vectorPath('csv/hrk.cert')))).toEqual(hygonRoot);
    const evidence = JSON.parse(readFileSync(vectorPath('csv/csv_evidence.json'), 'utf8')) as JsonObject;
    const { verdict, claims } = await csvVerifier(hygonRoot, []).verify(evidence, {
      trustedAttestationKeys: [],
      now: expectations.now,
    });
    expect(failures(verdict).map(({ check, code }) => `${check}: ${code}`)).toEqual([
      'certificates of the chip: EV_COLLATERAL_UNAVAILABLE',
    ]);
    expect(claims).toMatchObject({
      version: '1',
      serial_number: 'KPA64911240507',
      measure: 'ae2a2cf1f41a485fa37bf9ae92f678783c59fbc79de7b5d237743d58f5538034',
      policy: { nodbg: 1, noks: 0, es: 1, nosend: 0, domain: 0, csv: 0, csv3: 1 },
      report_data: '00'.repeat(64),
      sig_usage: '02100000',
      sig_algo: '04000000',
      anonce: '26d7c75d',
    });
  });
});
