import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { regularise } from '@sealpod/protocol/rcar';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import { sgxVerifier } from '../sgx/index.ts';
import { tdxVerifier } from '../tdx/index.ts';
import { issue, pem } from '../testing/authority.ts';
import type { Verification, Verifier } from '../verifier.ts';
import type { DcapRules } from './endorse.ts';
import {
  type CollateralOptions,
  mintQuote,
  mintSource,
  platform,
  type QuoteKind,
  type QuoteOptions,
  quoteParts,
  TestIntel,
  tcbLevel,
} from './testing/mint.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = randomBytes(48);
const initDataDigest = randomBytes(32);
let intel: TestIntel;
let other: TestIntel;
let folder: string;
let storage: Storage;

beforeAll(async () => {
  [intel, other] = await Promise.all([TestIntel.create(), TestIntel.create()]);
  folder = mkdtempSync(join(tmpdir(), 'sealpod-dcap-'));
  storage = await openStorage({ path: join(folder, 'db.sqlite') });
});
afterAll(async () => {
  await storage.close();
  rmSync(folder, { recursive: true, force: true });
});

let channels = 0;
/** Rules under the test's Intel. Each has a memory of its own of what was seen. */
function rules(collateral: CollateralOptions = {}, acceptExpiredCollateral = false): DcapRules {
  const sources = [mintSource(intel, collateral)];
  const seen = new SeenBefore(storage, 'intel');
  const channel = `test ${channels++}`;
  return {
    root: intel.root,
    collateral: new IntelCollateral({ sources, root: intel.root, seen, channel }),
    acceptExpiredCollateral,
  };
}

const bound = (kind: QuoteKind, options: QuoteOptions): QuoteOptions =>
  kind.startsWith('sgx')
    ? {
        ...options,
        enclave: {
          reportData: regularise(reportData, 64),
          configId: regularise(initDataDigest, 64),
          ...options.enclave,
        },
      }
    : {
        ...options,
        td: { reportData: regularise(reportData, 64), mrConfigId: regularise(initDataDigest, 48), ...options.td },
      };

const verifierOf = (kind: QuoteKind, given: DcapRules): Verifier =>
  kind.startsWith('sgx') ? sgxVerifier(given) : tdxVerifier(given);

interface Case {
  readonly quote?: QuoteOptions;
  readonly collateral?: CollateralOptions;
  readonly change?: (quote: Buffer) => void;
  readonly at?: Date;
  readonly acceptExpired?: boolean;
}

async function verified(kind: QuoteKind, given: Case = {}): Promise<Verification> {
  const quote = mintQuote(intel, kind, bound(kind, given.quote ?? {}));
  given.change?.(quote);
  const verifier = verifierOf(kind, rules(given.collateral, given.acceptExpired));
  const expectations = { reportData, initDataDigest, trustedAttestationKeys: [], now: given.at ?? now };
  return verifier.verify({ quote: quote.toString('base64') }, expectations);
}

async function codes(kind: QuoteKind, given: Case = {}): Promise<string[]> {
  try {
    return failures((await verified(kind, given)).verdict).map(({ check, code }) => `${code} ${check}`);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown ${thrown.code}`];
    throw thrown;
  }
}

const kinds: readonly QuoteKind[] = ['tdx-4', 'tdx-5-1.0', 'tdx-5-1.5', 'sgx-3', 'sgx-4', 'sgx-5'];

describe.each(kinds)('a minted quote %s', (kind) => {
  it('verifies with its collateral, and is told as upstream tells it', async () => {
    const { verdict, claims } = await verified(kind);
    expect(failures(verdict)).toEqual([]);
    expect(claims).toMatchObject({
      tcb_status: 'UpToDate',
      collateral_expiration_status: '0',
      advisory_ids: [],
      tcb_eval_num: 17,
      pck_crl_num: 1,
      root_ca_crl_num: 1,
      report_data: regularise(reportData, 64).toString('hex'),
    });
    expect('tcb_status_current' in claims).toBe(kind === 'tdx-5-1.5');
  });

  it('is refused with any signed byte changed', async () => {
    const { body, signature, attestationKey, qeReport, qeSignature } = quoteParts(kind);
    const length = mintQuote(intel, kind).length;
    const places = [
      0,
      4,
      12,
      28,
      ...[body, signature, attestationKey, qeReport, qeSignature].flatMap((at) => [at, at + 17, at + 60]),
    ];
    for (const at of [...places, ...Array.from({ length: 40 }, (_, index) => body + index * 9)].filter(
      (at) => at < length,
    )) {
      const found = await codes(kind, {
        change: (quote) => {
          quote[at] = (quote[at] ?? 0) ^ 1;
        },
      });
      expect(found, `byte ${at}`).not.toEqual([]);
    }
  });

  const extension = (changes: Partial<typeof platform>) => ({ platform: changes });
  const pckCases: readonly [string, string, () => Promise<Case>][] = [
    [
      'another root',
      'EV_CERT_CHAIN certificate chain',
      async () => ({ quote: { machine: other.machine, chain: other.chain() } }),
    ],
    [
      'a platform that has expired',
      'EV_CERT_CHAIN certificate chain',
      async () => {
        const machine = await intel.pck({ notAfter: new Date('2026-05-01T00:00:00Z') });
        return { quote: { machine, chain: intel.chain(machine) } };
      },
    ],
    [
      'the certificate of another platform',
      'EV_SIGNATURE signature of the quoting enclave',
      async () => ({
        quote: { machine: intel.machine, chain: intel.chain(await intel.pck()) },
      }),
    ],
    [
      'no level that the platform reaches',
      'EV_TCB_STATUS TCB status',
      async () => ({
        collateral: { tcbInfo: { tcbLevels: [tcbLevel('UpToDate', { pceSvn: 14, tdx: [] })] } },
      }),
    ],
    [
      'a revoked level',
      'EV_TCB_STATUS TCB status',
      async () => {
        const machine = await intel.pck(extension({ tcb: platform.tcb.map(() => 0), pceSvn: 1 }));
        return { quote: { machine, chain: intel.chain(machine) } };
      },
    ],
  ];
  it.each(pckCases)('%s: %s', async (_name, expected, given) => {
    expect(await codes(kind, await given())).toContain(expected);
  });

  const cases: readonly [string, string, () => Case][] = [
    [
      'a quote of another vendor',
      'EV_TEE_UNSUPPORTED vendor of the quote',
      () => ({ quote: { header: { vendorId: Buffer.from('939a7233f79c4ca9940a0db3957f0608', 'hex') } } }),
    ],
    [
      'a quote signed by another key',
      'EV_SIGNATURE quote signature',
      () => ({ quote: { quoteSigner: other.machine.key } }),
    ],
    [
      'a quoting enclave signed by another key',
      'EV_SIGNATURE signature of the quoting enclave',
      () => ({ quote: { qeSigner: other.machine.key } }),
    ],
    [
      'an attestation key that the enclave did not report',
      'EV_AK_UNTRUSTED attestation key',
      () => ({ quote: { qe: { reportData: Buffer.alloc(64, 1) } } }),
    ],
    [
      'a quoting enclave of another signer',
      'EV_AK_UNTRUSTED quoting enclave',
      () => ({ quote: { qe: { mrSigner: Buffer.alloc(32, 1) } } }),
    ],
    [
      'a quoting enclave in debug mode',
      'EV_AK_UNTRUSTED quoting enclave',
      () => ({ quote: { qe: { attributes: Buffer.from('17000000000000000700000000000000', 'hex') } } }),
    ],
    ['another product of that signer', 'EV_AK_UNTRUSTED quoting enclave', () => ({ quote: { qe: { isvProdId: 9 } } })],
    [
      'a quoting enclave below every level',
      'EV_AK_UNTRUSTED quoting enclave',
      () => ({ quote: { qe: { isvSvn: 1 } } }),
    ],
    ['no TCB info', 'EV_COLLATERAL_UNAVAILABLE TCB info', () => ({ collateral: { tcbInfo: null } })],
    [
      'no identity of the quoting enclave',
      'EV_COLLATERAL_UNAVAILABLE identity of the quoting enclave',
      () => ({ collateral: { qeIdentity: null } }),
    ],
    [
      'no list of the root',
      'EV_COLLATERAL_UNAVAILABLE revocation list of the root',
      () => ({ collateral: { rootList: null } }),
    ],
    [
      'no list of platforms',
      'EV_COLLATERAL_UNAVAILABLE revocation list of platforms',
      () => ({ collateral: { pckList: null } }),
    ],
    [
      'TCB info signed by another',
      'EV_CERT_CHAIN TCB info',
      () => ({ collateral: { tcbInfoSigning: { signer: other.tcbSigner } } }),
    ],
    [
      'TCB info that was changed',
      'EV_SIGNATURE TCB info',
      () => ({ collateral: { tcbInfoSigning: { signed: '{}' } } }),
    ],
    [
      'TCB info that has expired',
      'EV_COLLATERAL_EXPIRED TCB info',
      () => ({ collateral: { tcbInfo: { nextUpdate: '2026-05-31T00:00:00Z' } } }),
    ],
    [
      'an identity that has expired',
      'EV_COLLATERAL_EXPIRED identity of the quoting enclave',
      () => ({ collateral: { qeIdentity: { nextUpdate: '2026-05-31T00:00:00Z' } } }),
    ],
    [
      'a list of the root that has expired',
      'EV_COLLATERAL_EXPIRED revocation list of the root',
      () => ({ collateral: { rootList: { nextUpdate: new Date('2026-05-31T00:00:00Z') } } }),
    ],
    [
      'a list of platforms that has expired',
      'EV_COLLATERAL_EXPIRED revocation list of platforms',
      () => ({ collateral: { pckList: { nextUpdate: new Date('2026-05-31T00:00:00Z') } } }),
    ],
    [
      'a revoked platform',
      'EV_CERT_REVOKED certificate of the platform',
      () => ({ collateral: { pckList: { revoked: [intel.machine] } } }),
    ],
    [
      'a revoked authority',
      'EV_CERT_REVOKED authority of the platform',
      () => ({ collateral: { rootList: { revoked: [intel.platform] } } }),
    ],
    [
      'a revoked signer of TCB info',
      'EV_CERT_REVOKED signers of collateral',
      () => ({ collateral: { rootList: { revoked: [intel.tcbSigner] } } }),
    ],
    [
      'TCB info of another PCE',
      'EV_PART_MIX platform of the TCB info',
      () => ({ collateral: { tcbInfo: { pceId: 'abcd' } } }),
    ],
  ];
  it.each(cases)('%s: %s', async (_name, expected, given) => {
    expect(await codes(kind, given())).toContain(expected);
  });

  it('bindings: G-05 the session, and the initdata', async () => {
    const field = kind.startsWith('sgx') ? 'enclave' : 'td';
    expect(await codes(kind, { quote: { [field]: { reportData: randomBytes(64) } } })).toEqual([
      'EV_BINDING_MISMATCH report data',
    ]);
    const initdata = kind.startsWith('sgx') ? { configId: Buffer.alloc(64) } : { mrConfigId: Buffer.alloc(48) };
    expect(await codes(kind, { quote: { [field]: initdata } })).toEqual(['INITDATA_DIGEST initdata']);
  });

  it('expired collateral is used where the operator wants it, and the claim says so', async () => {
    const collateral = { tcbInfo: { nextUpdate: '2026-05-31T00:00:00Z' } };
    const { verdict, claims } = await verified(kind, { collateral, acceptExpired: true });
    expect([failures(verdict), claims['collateral_expiration_status']]).toEqual([[], '1']);
  });

  it('an old platform is a claim, with its advisories, that policies decide on', async () => {
    const machine = await intel.pck(extension({ tcb: platform.tcb.map((svn) => Math.max(svn - 1, 0)), pceSvn: 11 }));
    const { verdict, claims } = await verified(kind, { quote: { machine, chain: intel.chain(machine) } });
    expect(failures(verdict)).toEqual([]);
    // TDX 1.5: the current module is of the same old platform.
    expect(claims['tcb_status']).toBe('OutOfDate');
    expect(claims['advisory_ids']).toEqual(['INTEL-SA-00837']);
    expect(claims['tcb_date']).toBe('2023-02-15T00:00:00Z');
  });

  it('an old quoting enclave makes the whole out of date', async () => {
    const { claims } = await verified(kind, { quote: { qe: { isvSvn: 2 } } });
    expect(claims).toMatchObject({ tcb_status: 'OutOfDate', advisory_ids: ['INTEL-SA-00615'] });
  });

  it('garbage is EV_FORMAT or refused, whatever it is', async () => {
    const verifier = verifierOf(kind, rules());
    const quote = mintQuote(intel, kind);
    const expectations = { reportData, trustedAttestationKeys: [], now };
    await fc.assert(
      fc.asyncProperty(fc.nat(quote.length - 1), fc.uint8Array({ maxLength: 8 }), async (at, bytes) => {
        const changed = Buffer.concat([quote.subarray(0, at), bytes]);
        const outcome = await Promise.resolve()
          .then(() => verifier.verify({ quote: changed.toString('base64') }, expectations))
          .then(
            ({ verdict }) => verdict.code,
            (thrown: unknown) => (thrown instanceof SealpodError ? thrown.code : String(thrown)),
          );
        expect(outcome).toMatch(/^(EV_|REQUEST_TOO_LARGE)/);
      }),
      { numRuns: 60 },
    );
  });
});

describe('the TDX module', () => {
  const svn = (...bytes: readonly number[]): Buffer =>
    Buffer.concat([Buffer.from(bytes), Buffer.alloc(16 - bytes.length)]);

  it.each([
    ['signed by another', { mrSignerSeam: Buffer.alloc(48, 1) }, 'EV_TCB_STATUS signer of the TDX module'],
    ['with attributes', { seamAttributes: Buffer.alloc(8, 1) }, 'EV_DEBUG_ON attributes of the TDX module'],
    [
      'of a version that nobody knows',
      { teeTcbSvn: svn(4, 9, 5), teeTcbSvn2: svn(4, 1, 5) },
      'EV_TCB_STATUS TDX module',
    ],
    ['below every level', { teeTcbSvn: svn(1, 1, 5), teeTcbSvn2: svn(1, 1, 5) }, 'EV_TCB_STATUS TCB status'],
  ])('%s is refused', async (_name, td, expected) => {
    expect(await codes('tdx-5-1.5', { quote: { td } })).toContain(expected);
  });

  it('has a status of its own, which counts for the whole', async () => {
    const { claims } = await verified('tdx-5-1.5', {
      quote: { td: { teeTcbSvn: svn(2, 1, 5), teeTcbSvn2: svn(2, 1, 5) } },
    });
    expect(claims).toMatchObject({
      tcb_status: 'OutOfDate',
      advisory_ids: ['INTEL-SA-01036'],
      tcb_date: '2023-08-09T00:00:00Z',
    });
  });

  it('that was updated since the launch: the TD is advised to start again; advisories stay those of the launch', async () => {
    const { claims, verdict } = await verified('tdx-5-1.5', { quote: { td: { teeTcbSvn: svn(2, 1, 5) } } });
    expect(failures(verdict)).toEqual([]);
    expect(claims).toMatchObject({
      tcb_status: 'TDRelaunchAdvised',
      tcb_status_current: 'UpToDate',
      advisory_ids: ['INTEL-SA-01036'],
      advisory_ids_current: [],
    });
  });

  it('configuration that is needed shows in the advice', async () => {
    const tcbLevels = [tcbLevel('ConfigurationNeeded', { tdx: [3, 0, 5] }, ['INTEL-SA-00614'])];
    const { claims } = await verified('tdx-5-1.5', {
      collateral: { tcbInfo: { tcbLevels } },
      quote: { td: { teeTcbSvn: svn(2, 1, 5) } },
    });
    expect(claims['tcb_status']).toBe('TDRelaunchAdvisedConfigurationNeeded');
    const { claims: outdated } = await verified('tdx-5-1.0', {
      collateral: { tcbInfo: { tcbLevels } },
      quote: { qe: { isvSvn: 2 } },
    });
    expect(outdated['tcb_status']).toBe('OutOfDateConfigurationNeeded');
  });
});

it('the certificates of a quote may come in any order, without the root, and with text between them', async () => {
  const { machine, platform: authority, rootAuthority } = intel;
  for (const chain of [
    pem([rootAuthority, authority, machine]),
    pem([authority, machine]),
    `subject=CN = x\r\n${pem([machine, authority])}\r\n`.replaceAll('\n', '\r\n'),
  ])
    expect(await codes('tdx-4', { quote: { chain } })).toEqual([]);
  // The certificate alone, DER or PEM: who issued it comes with the list of platforms.
  for (const content of [machine.der, Buffer.from(pem([machine]))])
    expect(await codes('sgx-3', { quote: { certification: { type: 4, content } } })).toEqual([]);
});

it('a quote of version 3 that names a TEE is none of Intel’s', async () => {
  expect(await codes('sgx-3', { quote: { header: { teeType: 0x81 } } })).toEqual([
    'EV_TEE_UNSUPPORTED vendor of the quote',
  ]);
});

it('what the library for ASN.1 throws of its own accord is a malformed extension too', async () => {
  // A UniversalString of three bytes, in the place of a version.
  const universal = (certificate: Buffer): Buffer => {
    const changed = Buffer.from(certificate);
    const at = changed.indexOf(Buffer.from('060a2a864886f84d010d0101', 'hex'));
    expect(changed[at + 12]).toBe(4);
    changed[at + 12] = 0x1c;
    changed[at + 13] = 3;
    return changed;
  };
  const machine = { ...intel.machine, der: universal(intel.machine.der) };
  const found = await codes('tdx-4', { quote: { machine, chain: intel.chain(machine) } });
  expect(found).toContain('EV_FORMAT certificate of the platform');
});

it('G-20: a debug TD says so', async () => {
  const { claims } = await verified('tdx-4', {
    quote: { td: { tdAttributes: Buffer.from('0100001000000000', 'hex') } },
  });
  expect(claims['td_attributes']).toMatchObject({ debug: true });
});

it('a platform of another authority is held against that authority’s list', async () => {
  const machine = await intel.pck({ issuer: intel.processor });
  const quote = { machine, chain: intel.chain(machine, intel.processor) };
  expect(await codes('tdx-4', { quote })).toEqual([]);
  expect(await codes('tdx-4', { quote, collateral: { pckList: { revoked: [machine] } } })).toEqual([
    'EV_CERT_REVOKED certificate of the platform',
  ]);
});

it('a list of platforms of an authority that has expired since is not current, though the list is', async () => {
  const notAfter = new Date('2026-05-01T00:00:00Z');
  const old = await issue(intel.rootAuthority, intel.platform.subject, { authority: true, curve: 'P-256', notAfter });
  const document = await intel.revocationList('platform', { signer: old });
  const answers = {
    pckRevocationList: async () => ({ document, issuerChain: pem([old, intel.rootAuthority]) }),
  };
  expect(await codes('tdx-4', { collateral: { answers } })).toEqual([
    'EV_COLLATERAL_EXPIRED revocation list of platforms',
  ]);
});

it('dates of the claims are those of all collateral and certificates: the root is the eldest', async () => {
  const { claims } = await verified('tdx-4');
  const [anchor] = intel.root.anchors;
  expect(claims['earliest_issue_date']).toBe(anchor?.x509.validFromDate.toISOString().replace('.000Z', 'Z'));
  const young = await intel.pck({ notBefore: new Date('2026-05-31T00:00:00Z') });
  const { claims: later } = await verified('tdx-4', { quote: { machine: young, chain: intel.chain(young) } });
  expect(later['latest_issue_date']).toBe('2026-05-31T00:00:00Z');
});

it('a certificate without the extension of a platform is EV_FORMAT', async () => {
  const plain = await issue(intel.platform, 'CN=Intel SGX PCK Certificate', { curve: 'P-256' });
  const quote = { machine: plain, chain: intel.chain(plain) };
  expect(await codes('tdx-4', { quote })).toContain('EV_FORMAT certificate of the platform');
});
