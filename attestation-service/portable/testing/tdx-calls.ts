import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Extension } from '@peculiar/x509';
import { parseQuote } from '@sealpod/protocol/dcap';
import { encodeAaelEntry } from '@sealpod/protocol/event-log';
import type { JsonObject } from '@sealpod/protocol/json';
import { regularise } from '@sealpod/protocol/rcar';
import {
  type CollateralOptions,
  mintQuote,
  mintSource,
  platform,
  type QuoteKind,
  type QuoteOptions,
  TestIntel,
} from '../../verifiers/dcap/testing/mint.ts';
import { pem } from '../../verifiers/testing/authority.ts';
import type { EvidenceCall, NamedCall } from './drive.ts';

const recordings = join(import.meta.dirname, '../../verifiers/dcap/testing/recorded');

/** Quotes of real machines under Intel's root, and a time when the collateral that was recorded with them is current. */
export const recordedQuotes = [
  { name: 'tdx-quote', at: '2025-06-20T00:00:00Z', before: '2025-06-01T00:00:00Z' },
  { name: 'tdx-quote-1.5ex', at: '2026-10-09T00:00:00Z', before: '2026-10-01T00:00:00Z' },
] as const;
type RecordedQuote = (typeof recordedQuotes)[number];

export const recordedCollateralPath = (name: string): string => join(recordings, `${name}-collateral.json`);
const collateralOf = (name: string): JsonObject =>
  JSON.parse(readFileSync(recordedCollateralPath(name), 'utf8')) as JsonObject;
const text = (collateral: JsonObject, name: string): string => String(collateral[name]);

/** A recorded quote with its collateral, which verifies. */
export function recordedQuoteCall(name: string, now: string): EvidenceCall {
  const quote = readFileSync(join(recordings, `${name}.bin`));
  return {
    tee: 'tdx',
    evidence: { quote: quote.toString('base64') },
    reportData: parseQuote(quote).body.report.reportData.toString('hex'),
    now,
    collateral: collateralOf(name),
  };
}

/** The quotes of real machines, genuine and with one thing changed. */
export function recordedTdxCalls(): NamedCall[] {
  return [
    ...recordedQuotes.flatMap(changedRecording),
    {
      name: 'tdx-quote-outdated: a platform that no level describes',
      code: 'EV_TCB_STATUS',
      call: recordedQuoteCall('tdx-quote-outdated', '2026-02-19T00:00:00Z'),
    },
  ];
}

function changedRecording({ name: recording, at, before }: RecordedQuote): NamedCall[] {
  const genuine = recordedQuoteCall(recording, at);
  const quote = Buffer.from(String((genuine.evidence as JsonObject)['quote']), 'base64');
  const collateral = collateralOf(recording);
  const call = (name: string, code: string, more: Partial<EvidenceCall> = {}): NamedCall => ({
    name: `${recording}: ${name}`,
    code,
    call: { ...genuine, ...more },
  });
  const of = (bytes: Buffer): Partial<EvidenceCall> => ({ evidence: { quote: bytes.toString('base64') } });
  const flipped = (offset: number): Partial<EvidenceCall> => of(flip(quote, offset));
  const given = (changes: JsonObject): Partial<EvidenceCall> => ({ collateral: { ...collateral, ...changes } });
  const replaced = (member: string, from: string | RegExp, to: string): Partial<EvidenceCall> =>
    given({ [member]: text(collateral, member).replace(from, to) });
  const { signed, descriptor } = parseQuote(quote);
  const body = 48 + (descriptor?.length ?? 0);
  const signature = signed.length + 4;
  const attestationKey = signature + 64;
  // Behind the key and the header of the certification data.
  const qeReport = attestationKey + 64 + 6;
  const qeSignature = qeReport + 384;
  const [qeReportData, authenticationData] = [qeReport + 320, qeSignature + 66];
  return [
    call('genuine', 'OK'),
    call('genuine, with the whole answers of Intel’s service', 'OK', {
      collateral: { ...collateral, ...wholeAnswers(collateral) },
    }),
    call('a changed nonce of the header', 'EV_SIGNATURE', flipped(30)),
    call('a changed version of the TDX module', 'EV_SIGNATURE', flipped(body)),
    call('a changed MRTD', 'EV_SIGNATURE', flipped(body + 136)),
    call('a changed RTMR', 'EV_SIGNATURE', flipped(body + 380)),
    call('a changed signature', 'EV_SIGNATURE', flipped(signature + 5)),
    call('a signature of zeros', 'EV_SIGNATURE', of(Buffer.from(quote).fill(0, signature, attestationKey))),
    call('another attestation key', 'EV_SIGNATURE', flipped(attestationKey + 7)),
    call('a changed report of the quoting enclave', 'EV_SIGNATURE', flipped(qeReport + 64)),
    call('a quoting enclave that names another key', 'EV_AK_UNTRUSTED', flipped(qeReportData)),
    call('other authentication data', 'EV_AK_UNTRUSTED', flipped(authenticationData)),
    call('a changed signature of the quoting enclave', 'EV_SIGNATURE', flipped(qeSignature + 9)),
    call('another version of the quote', 'EV_FORMAT', flipped(1)),
    call('another vendor', 'EV_SIGNATURE', flipped(12)),
    call('a quote that ends early', 'EV_FORMAT', of(quote.subarray(0, signature + 200))),
    call('no quote', 'EV_FORMAT', { evidence: {} }),
    call('other report data', 'EV_BINDING_MISMATCH', { reportData: '11'.repeat(48) }),
    call('other initdata', 'INITDATA_DIGEST', { initDataDigest: '11'.repeat(48) }),
    call('an event log of something else', 'EV_EVENTLOG_REPLAY', {
      evidence: { quote: quote.toString('base64'), cc_eventlog: agentLog(['forged']).bytes.toString('base64') },
    }),
    call('collateral without a member', 'EV_COLLATERAL_UNAVAILABLE', { collateral: {} }),
    call('TCB info of another TEE', 'EV_COLLATERAL_UNAVAILABLE', given(sgxTcbInfo())),
    call('collateral that is none', 'EV_COLLATERAL_UNAVAILABLE', given({ tcb_info: 'text' })),
    call('no list of the root', 'EV_COLLATERAL_UNAVAILABLE', given({ root_ca_crl: '' })),
    call('no list of platforms', 'EV_COLLATERAL_UNAVAILABLE', given({ pck_crl: '' })),
    call(
      'a changed date of the TCB info',
      'EV_SIGNATURE',
      replaced('tcb_info', /"issueDate":"20../, '"issueDate":"2020'),
    ),
    call('a changed level of the TCB info', 'EV_SIGNATURE', replaced('tcb_info', '"OutOfDate"', '"UpToDate"')),
    call('a changed signature of the TCB info', 'EV_SIGNATURE', replaced('tcb_info_signature', /^../, '00')),
    call(
      'a changed identity of the quoting enclave',
      'EV_SIGNATURE',
      replaced('qe_identity', /"isvsvn":\d+/, '"isvsvn":0'),
    ),
    call(
      'TCB info signed by an authority of platforms',
      'EV_CERT_CHAIN',
      given({
        tcb_info_issuer_chain: text(collateral, 'pck_crl_issuer_chain'),
      }),
    ),
    call(
      'a changed list of platforms',
      'EV_SIGNATURE',
      given({
        pck_crl: flip(Buffer.from(text(collateral, 'pck_crl'), 'hex'), -9).toString('hex'),
      }),
    ),
    call(
      'a changed list of the root',
      'EV_SIGNATURE',
      given({
        root_ca_crl: flip(Buffer.from(text(collateral, 'root_ca_crl'), 'hex'), -9).toString('hex'),
      }),
    ),
    call('expired collateral', 'EV_COLLATERAL_EXPIRED', { now: '2027-06-01T00:00:00Z' }),
    call('expired collateral that is accepted', 'OK', { now: '2027-06-01T00:00:00Z', acceptExpiredCollateral: true }),
    call('collateral of the future', 'EV_COLLATERAL_EXPIRED', { now: before }),
    call('collateral of the future where expired is accepted', 'EV_COLLATERAL_EXPIRED', {
      now: before,
      acceptExpiredCollateral: true,
    }),
  ];
}

/** TCB info and identity as `{"tcbInfo": …, "signature": …}`. */
function wholeAnswers(collateral: JsonObject): JsonObject {
  const whole = (name: string, member: string): JsonObject => ({
    [name]: `{"${member}":${text(collateral, name)},"signature":"${text(collateral, `${name}_signature`)}"}`,
  });
  return { ...whole('tcb_info', 'tcbInfo'), ...whole('qe_identity', 'enclaveIdentity') };
}

function sgxTcbInfo(): JsonObject {
  const members = Object.entries(collateralOf('sgx-quote'));
  return Object.fromEntries(members.filter(([name]) => name.startsWith('tcb_info')));
}

const reportData = Buffer.alloc(48, 0x3d);
const initDataDigest = Buffer.alloc(48, 0x4e);

/** Quotes of a test's own Intel, genuine and with one thing changed before it was signed. */
export async function mintedTdxCalls(): Promise<NamedCall[]> {
  const intel = await TestIntel.create();
  const tdxRoot = { name: 'test Intel', simulated: true, certificates: pem([intel.rootAuthority]) };
  const log = agentLog(['{"image":"a"}', 'plain']);
  const call = async (
    kind: QuoteKind,
    name: string,
    code: string,
    { quote = {}, collateral = {}, more = {} }: Minted = {},
  ): Promise<NamedCall> => {
    const fields = { reportData: regularise(reportData, 64), mrConfigId: initDataDigest, rtmr3: log.register };
    const zeros = Object.fromEntries(['rtmr0', 'rtmr1', 'rtmr2'].map((register) => [register, Buffer.alloc(48)]));
    const bytes = mintQuote(intel, kind, { ...quote, td: { ...fields, ...zeros, ...quote.td } });
    return {
      name: `minted ${kind}: ${name}`,
      code,
      call: {
        tee: 'tdx',
        evidence: { quote: bytes.toString('base64'), cc_eventlog: log.bytes.toString('base64') },
        reportData: reportData.toString('hex'),
        initDataDigest: initDataDigest.toString('hex'),
        now: '2026-06-01T00:00:00Z',
        tdxRoot,
        ...more,
        collateral: { ...(await quoteCollateral(intel, collateral)), ...more.collateral },
      },
    };
  };
  const older = await intel.pck({ platform: { tcb: platform.tcb.map((svn) => Math.max(svn - 1, 0)), pceSvn: 11 } });
  const stranger = await intel.pck({ platform: { fmspc: Buffer.from('112233445566', 'hex') } });
  const processor = await intel.pck({ issuer: intel.processor });
  const platformId = { certification: { type: 3, content: Buffer.alloc(404) } };
  const kinds = ['tdx-4', 'tdx-5-1.0', 'tdx-5-1.5'] as const;
  const [, , kind] = kinds;
  return Promise.all([
    ...kinds.flatMap((each) => [
      call(each, 'genuine', 'OK'),
      call(each, 'a TDX module in debug mode', 'EV_DEBUG_ON', {
        quote: { td: { seamAttributes: Buffer.alloc(8, 1) } },
      }),
      call(each, 'registers that its events do not make', 'EV_EVENTLOG_REPLAY', {
        quote: { td: { rtmr3: Buffer.alloc(48, 1) } },
      }),
    ]),
    call(kind, 'a TDX module of another signer', 'EV_TCB_STATUS', {
      quote: { td: { mrSignerSeam: Buffer.alloc(48, 1) } },
    }),
    call(kind, 'another quoting enclave', 'EV_AK_UNTRUSTED', { quote: { qe: { mrSigner: Buffer.alloc(32, 1) } } }),
    call(kind, 'another key than the platform’s', 'EV_SIGNATURE', { quote: { qeSigner: stranger.key } }),
    call(kind, 'another key than the attestation key', 'EV_SIGNATURE', { quote: { quoteSigner: stranger.key } }),
    call(kind, 'a platform whose level was revoked', 'EV_TCB_STATUS', {
      quote: { td: { teeTcbSvn: Buffer.alloc(16) } },
    }),
    call(kind, 'a platform behind the best level', 'OK', { quote: { machine: older } }),
    call(kind, 'a platform that the collateral is not of', 'EV_COLLATERAL_UNAVAILABLE', {
      quote: { machine: stranger },
    }),
    call(kind, 'a revoked platform', 'EV_CERT_REVOKED', { collateral: { pckList: { revoked: [intel.machine] } } }),
    call(kind, 'a revoked authority', 'EV_CERT_REVOKED', { collateral: { rootList: { revoked: [intel.platform] } } }),
    call(kind, 'a revoked signer', 'EV_CERT_REVOKED', { collateral: { rootList: { revoked: [intel.tcbSigner] } } }),
    call(kind, 'a certificate whose authority the chain lacks', 'EV_CERT_CHAIN', {
      quote: { machine: processor, chain: intel.chain(processor) },
    }),
    call(kind, 'an expired list', 'EV_COLLATERAL_EXPIRED', {
      collateral: { pckList: { nextUpdate: new Date('2026-05-31T00:00:00Z') } },
    }),
    ...Object.entries(authorityKeys).map(async ([name, der]) => {
      const extension = new Extension('2.5.29.35', false, Buffer.from(der, 'hex'));
      const machine = await intel.pck({ extensions: [extension] });
      return call(kind, `a certificate whose authority key identifier is ${name}`, 'EV_CERT_CHAIN', {
        quote: { machine },
      });
    }),
    call('tdx-4', 'its certificate in the collateral', 'OK', {
      quote: platformId,
      more: { collateral: { pck_certificate_chain: intel.chain() } },
    }),
    call('tdx-4', 'its certificate nowhere', 'EV_COLLATERAL_UNAVAILABLE', { quote: platformId }),
    call('tdx-4', 'the certificate of another in the collateral', 'EV_SIGNATURE', {
      quote: platformId,
      more: { collateral: { pck_certificate_chain: intel.chain(older) } },
    }),
  ]);
}

/** Values of the extension that no issuer here fits to. */
const authorityKeys = {
  malformed: '0401ff',
  'of an unknown kind': '3003830101',
  'of another certificate': '3003820101',
};

interface Minted {
  readonly quote?: QuoteOptions;
  readonly collateral?: CollateralOptions;
  readonly more?: Partial<EvidenceCall>;
}

/** What a source of a test's Intel has for its platform, as Intel's library writes it. */
async function quoteCollateral(intel: TestIntel, options: CollateralOptions): Promise<JsonObject> {
  const source = mintSource(intel, options);
  const [info, identity, pckList, rootList] = await Promise.all([
    source.tcbInfo('tdx', platform.fmspc.toString('hex').toUpperCase()),
    source.qeIdentity('tdx'),
    source.pckRevocationList('platform'),
    source.rootRevocationList(),
  ]);
  return {
    tcb_info: info?.document.toString() ?? '',
    tcb_info_issuer_chain: info?.issuerChain ?? '',
    qe_identity: identity?.document.toString() ?? '',
    qe_identity_issuer_chain: identity?.issuerChain ?? '',
    pck_crl: pckList?.document.toString('hex') ?? '',
    pck_crl_issuer_chain: pckList?.issuerChain ?? '',
    root_ca_crl: rootList?.document.toString('hex') ?? '',
  };
}

/** A log as the attestation agent writes it where the firmware has none, and what its events make of RTMR3. */
function agentLog(contents: readonly string[]): { readonly bytes: Buffer; readonly register: Buffer } {
  const header = `${'00000000'}03000000${'00'.repeat(20)}25000000${'00'.repeat(24)}020000000c003000120020${'0000'}`;
  const entries = contents.map((content) =>
    encodeAaelEntry(4, 'sha384', { domain: 'example.org', operation: 'Load', content }),
  );
  const register = entries.reduce(
    (value, entry) => createHash('sha384').update(value).update(entry.subarray(14, 62)).digest(),
    Buffer.alloc(48),
  );
  return { bytes: Buffer.concat([Buffer.from(header, 'hex'), ...entries, Buffer.alloc(64, 0xff)]), register };
}

/** @param at from the end where it is negative */
function flip(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes);
  const index = at < 0 ? bytes.length + at : at;
  changed[index] = (changed[index] ?? 0) ^ 1;
  return changed;
}
