import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { EarClaims } from '@sealpod/protocol/ear';
import { initdataDigest } from '@sealpod/protocol/initdata';
import type { JsonObject } from '@sealpod/protocol/json';
import { regularise, runtimeDataDigest } from '@sealpod/protocol/rcar';
import { snpReportAsJson } from '@sealpod/protocol/snp';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import type { TpmEvidence } from '@sealpod/protocol/tpm';
import { SoftwareTpm } from '@sealpod/protocol/tpm/testing';
import type { AttestationService } from '../../service.ts';
import { newTokenKey, TokenSigner } from '../../token/signer.ts';
import { mintReport, reportFields, TestAmd } from '../../verifiers/snp/testing/mint.ts';
import { tpmVerifier } from '../../verifiers/tpm/index.ts';
import { TestAuthority } from '../../verifiers/tpm/testing/authority.ts';
import { initdata, session, TestGuest } from '../../verifiers/tpm/testing/mint.ts';
import type { Call, NamedCall } from './drive.ts';
import { mintedTdxCalls, recordedTdxCalls } from './tdx-calls.ts';

const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Evidence of SNP of a test's own AMD, genuine and with one thing changed. */
export async function mintedSnpCalls(): Promise<NamedCall[]> {
  const amd = await TestAmd.create();
  const tcb = { bootloader: 3, tee: 0, snp: 8, microcode: 115 };
  const [chipId, reportData, hostData] = [randomBytes(64), randomBytes(48), randomBytes(32)];
  const vcek = await amd.chipKey(chipId, tcb);
  const other = await (await TestAmd.create()).chipKey(chipId, tcb);
  const snpRoot = {
    name: 'test AMD',
    simulated: false,
    certificates: [amd.ark, amd.ask, amd.asvk].map(({ der }) => pem(der)).join(''),
  };
  const fields = { chipId, reportData: regularise(reportData, 64), hostData };
  const genuine = await mintReport(vcek, fields);
  const call = (name: string, code: string, report: Buffer, more: Partial<Call> = {}, key = vcek): NamedCall => ({
    name: `snp: ${name}`,
    code,
    call: {
      tee: 'snp',
      evidence: {
        attestation_report: snpReportAsJson(report),
        cert_chain: [{ cert_type: 'VCEK', data: [...key.der] }],
      },
      reportData: hex(reportData),
      initDataDigest: hex(hostData),
      now: '2026-06-01T00:00:00Z',
      snpRoot,
      ...more,
    } as Call,
  });
  const flipped = (at: number): Buffer => {
    const report = Buffer.from(genuine);
    report[at] = (report[at] ?? 0) ^ 1;
    return report;
  };
  const signed = (change: (report: Buffer) => void): Promise<Buffer> => mintReport(vcek, fields, change);
  return [
    call('genuine', 'OK', genuine),
    call('a changed measurement', 'EV_SIGNATURE', flipped(reportFields.measurement)),
    call('a changed signature', 'EV_SIGNATURE', flipped(0x2a0)),
    call('a signature of zeros', 'EV_SIGNATURE', Buffer.concat([genuine.subarray(0, 0x2a0), Buffer.alloc(512)])),
    call('a changed chip', 'EV_SIGNATURE', flipped(reportFields.chipId)),
    call('another chip', 'EV_PART_MIX', await signed((report) => report.fill(7, 0x1a0, 0x1e0))),
    call('another TCB', 'EV_PART_MIX', await signed((report) => report.writeUInt8(4, reportFields.reportedTcb))),
    call('a privilege level', 'EV_VMPL', await signed((report) => report.writeUInt32LE(1, reportFields.vmpl))),
    call('another processor', 'EV_TEE_UNSUPPORTED', await signed((report) => report.writeUInt8(9, 0x188))),
    call('version 6', 'EV_FORMAT', await signed((report) => report.writeUInt32LE(6, 0))),
    call('other report data', 'EV_BINDING_MISMATCH', genuine, { reportData: '11'.repeat(48) }),
    call('other initdata', 'INITDATA_DIGEST', genuine, { initDataDigest: '11'.repeat(32) }),
    call('a foreign certificate', 'EV_CERT_CHAIN', genuine, {}, other),
    call('after the certificates’ end', 'EV_CERT_CHAIN', genuine, { now: '2050-01-01T00:00:00Z' }),
    call('a list that revokes', 'EV_CERT_REVOKED', genuine, {
      revocationList: hex(await amd.revocationList([amd.ask])),
    }),
    call('no object', 'EV_FORMAT', genuine, { evidence: 'text' }),
    call('a TEE that is not verified here', 'EV_TEE_UNSUPPORTED', genuine, { tee: 'sample' }),
  ];
}

/** Statements of a booted software TPM, genuine and with one thing changed. */
export async function mintedTpmCalls(): Promise<NamedCall[]> {
  const authority = await (await TestAuthority.root('CN=Test Root')).intermediate();
  const tpmRoots = [{ name: 'test TPMs', certificates: authority.certificates, simulated: true }];
  const challengeKey = randomBytes(32);
  const verifier = tpmVerifier({ roots: tpmRoots }, challengeKey);
  const service = {
    challenge: async ({ tee_params: parameters = '' }) => verifier.challenge?.(parameters) ?? '',
  } as AttestationService;
  const calls: NamedCall[] = [];
  const keys = {
    rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
    ec: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
  };
  for (const [kind, endorsementKey] of Object.entries(keys)) {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), await authority.endorse(endorsementKey));
    const to = session(randomBytes(32).toString('base64'));
    const genuine = guest.evidence(to, await guest.activate(service, to.nonce));
    const call = (name: string, code: string, change: object = {}, more: Partial<Call> = {}): NamedCall => ({
      name: `tpm, ${kind} endorsement key: ${name}`,
      code,
      call: {
        tee: 'tpm',
        evidence: { ...genuine, ...change } as unknown as JsonObject,
        reportData: hex(runtimeDataDigest(to)),
        nonce: to.nonce,
        initDataDigest: hex(initdataDigest(initdata, 'sha256')),
        now: new Date().toISOString(),
        tpmRoots,
        challengeKey: hex(challengeKey),
        ...more,
      } as Call,
    });
    const flip = (text: string | undefined, at: number): string => {
      const bytes = Buffer.from(text ?? '', 'base64');
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      return bytes.toString('base64');
    };
    const quote = (change: Partial<TpmEvidence['tpm_quote']>): object => ({
      tpm_quote: { ...genuine.tpm_quote, ...change },
    });
    const [first = '', ...others] = genuine.tpm_quote.pcrs;
    calls.push(
      call('genuine', 'OK'),
      call('a changed quote', 'EV_NONCE_MISMATCH', quote({ message: flip(genuine.tpm_quote.message, 50) }), {
        challengeKey: hex(randomBytes(32)),
      }),
      call('a changed signature', 'EV_SIGNATURE', quote({ signature: flip(genuine.tpm_quote.signature, 20) })),
      call(
        'a changed register',
        'EV_SIGNATURE',
        quote({ pcrs: [`00${first.slice(2)}`.replace(/^0000/, '0100'), ...others] }),
      ),
      call('a changed event log', 'EV_EVENTLOG_REPLAY', { event_log: flip(genuine.event_log, 200) }),
      call('another command line', 'EV_EVENTLOG_REPLAY', { kernel_command_line: 'quiet' }),
      call('another secret', 'EV_AK_UNTRUSTED', { activated_secret: flip(genuine.activated_secret, 0) }),
      call('no enrolled root', 'EV_CERT_CHAIN', {}, { tpmRoots: [] }),
      call('other report data', 'EV_BINDING_MISMATCH', {}, { reportData: '11'.repeat(48) }),
      call('other initdata', 'INITDATA_DIGEST', {}, { initDataDigest: '11'.repeat(32) }),
      call('a malformed key', 'EV_FORMAT', { ak_public: flip(genuine.ak_public, 3) }),
      call('a key off its curve', 'EV_FORMAT', { ak_public: flip(genuine.ak_public, 60) }),
    );
  }
  return calls;
}

/** Tokens as the service signs them. */
export async function mintedEarCalls(): Promise<NamedCall[]> {
  const [signer, other] = [await TokenSigner.open(await newTokenKey()), await TokenSigner.open(await newTokenKey())];
  const claims = {
    eat_profile: 'tag:github.com,2024:confidential-containers/Trustee',
    iat: 1_780_000_000,
    exp: 1_780_000_300,
    iss: 'CoCo-Attestation-Service',
    'ear.verifier-id': { developer: 'test', build: 'test' },
    submods: {},
  } satisfies EarClaims;
  const token = await signer.sign(claims);
  const call = (name: string, code: string, more: Partial<Call> = {}): NamedCall => ({
    name: `ear: ${name}`,
    code,
    call: {
      token,
      jwks: { keys: [other.publicJwk(), signer.publicJwk()] },
      issuer: claims.iss,
      now: new Date(1_780_000_100_000).toISOString(),
      ...more,
    } as Call,
  });
  const [header, , signature] = token.split('.');
  const changed = Buffer.from(JSON.stringify({ ...claims, iss: 'other' })).toString('base64url');
  return [
    call('genuine', 'OK'),
    call('changed claims', 'TOKEN_INVALID', { token: `${header}.${changed}.${signature}` }),
    call('the key only in its header', 'TOKEN_INVALID', { jwks: { keys: [other.publicJwk()] } }),
    call('expired', 'TOKEN_INVALID', { now: '2027-01-01T00:00:00Z' }),
    call('not valid yet', 'TOKEN_INVALID', { now: '2025-01-01T00:00:00Z' }),
    call('another issuer', 'TOKEN_INVALID', { issuer: 'other' }),
    call('no audience', 'TOKEN_INVALID', { audience: 'kbs' }),
    call('no token', 'TOKEN_INVALID', { token: 'text' }),
    call('unsigned', 'TOKEN_INVALID', {
      token: `${Buffer.from('{"alg":"none"}').toString('base64url')}.${changed}.`,
    }),
  ];
}

/** Published evidence under the vendors' own roots; none where the vectors are absent. */
export function recordedCalls(): NamedCall[] {
  if (!existsSync(vectorPath('expected-claims.json'))) return [];
  const now = '2025-06-01T00:00:00Z';
  const read = (name: string): Buffer => readFileSync(vectorPath(name));
  const snp = (report: string, type: string, key: string, code: string): NamedCall => ({
    name: `recorded: ${report} with ${key}`,
    code,
    call: {
      tee: 'snp',
      evidence: {
        attestation_report: snpReportAsJson(read(`snp/${report}`)),
        cert_chain: [{ cert_type: type, data: [...read(`snp/${key}`)] }],
      },
      allowVersion2: true,
      now,
    },
  });
  const golden = JSON.parse(read('expected-claims.json').toString()) as Record<
    string,
    { readonly expected_report_data_hex: string }
  >;
  const tpm = JSON.parse(read('tpm/tpm_evidence.json').toString()) as { readonly ak_public?: string } & JsonObject;
  return [
    snp('test-report.bin', 'VCEK', 'test-vcek.der', 'OK'),
    snp('test-report.bin', 'VCEK', 'test-vcek-invalid-new.der', 'EV_CERT_CHAIN'),
    snp('test-vlek-report.bin', 'VLEK', 'test-vlek.der', 'EV_VMPL'),
    ...['evidence-v0.json', 'evidence-v1.json', 'evidence-v2.json'].map((name) => ({
      name: `recorded: az-snp-vtpm ${name}`,
      code: 'OK',
      call: {
        tee: 'az-snp-vtpm',
        evidence: JSON.parse(read(`az-snp-vtpm/${name}`).toString()) as JsonObject,
        reportData: golden[`az-snp-vtpm/${name}`]?.expected_report_data_hex ?? '',
        now,
      },
    })),
    {
      // Its virtual TPM and its quote are looked at all the same; the results are compared with Node's.
      name: 'recorded: az-tdx-vtpm evidence-v1.json without collateral',
      code: 'EV_COLLATERAL_UNAVAILABLE',
      call: {
        tee: 'az-tdx-vtpm',
        evidence: JSON.parse(read('az-tdx-vtpm/evidence-v1.json').toString()) as JsonObject,
        reportData: '11',
        now,
      },
    },
    {
      name: 'recorded: tpm',
      code: 'EV_NONCE_MISMATCH',
      call: { tee: 'tpm', evidence: tpm, reportData: '00', trustedAttestationKeys: [tpm.ak_public ?? ''], now },
    },
  ];
}

export async function allCalls(): Promise<NamedCall[]> {
  return [
    ...(await mintedSnpCalls()),
    ...(await mintedTdxCalls()),
    ...(await mintedTpmCalls()),
    ...(await mintedEarCalls()),
    ...recordedTdxCalls(),
    ...recordedCalls(),
  ];
}
