import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type CollateralOptions,
  mintSource,
  platform,
  signedAnswer,
  TestIntel,
  tcbInfo,
} from '../../verifiers/dcap/testing/mint.ts';
import { issue, pem } from '../../verifiers/testing/authority.ts';
import { SeenBefore } from '../seen-before.ts';
import { IntelCollateral } from './collateral.ts';
import type { IntelAnswer, IntelCollateralSource } from './source.ts';

const now = new Date('2026-06-01T00:00:00Z');
const fmspc = platform.fmspc.toString('hex').toUpperCase();
let intel: TestIntel;
let other: TestIntel;
let folder: string;
let storage: Storage;

beforeAll(async () => {
  [intel, other] = await Promise.all([TestIntel.create(), TestIntel.create()]);
});
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'intel-collateral-'));
  storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
});
afterEach(async () => {
  await storage.close();
  rmSync(folder, { recursive: true, force: true });
});

/** As after a restart: nothing is known but what storage keeps. */
const open = (sources: readonly IntelCollateralSource[], channel = 'early'): IntelCollateral =>
  new IntelCollateral({ sources, root: intel.root, seen: new SeenBefore(storage, 'intel'), channel });
const from = (options: CollateralOptions = {}): IntelCollateral => open([mintSource(intel, options)]);
const codeOf = async (asked: Promise<{ readonly problem?: { readonly code: string } | undefined }>): Promise<string> =>
  (await asked).problem?.code ?? 'none';

describe('signed documents', () => {
  it('are read where all is as Intel makes it', async () => {
    const collateral = from();
    const tdx = (await collateral.tcbInfo('tdx', fmspc, now)).value?.document;
    expect(tdx).toMatchObject({ tee: 'tdx', version: 3, evaluationDataNumber: 17, fmspc: platform.fmspc });
    expect(tdx?.levels[0]).toMatchObject({ status: 'UpToDate', sgx: platform.tcb, pceSvn: 13, advisories: [] });
    expect(tdx?.levels[0]?.tdx?.slice(0, 4)).toEqual([3, 0, 5, 0]);
    expect(tdx?.tdxModules.get('TDX_01')?.levels[1]).toMatchObject({
      status: 'OutOfDate',
      isvSvn: 2,
      advisories: ['INTEL-SA-01036'],
    });
    const sgx = (await collateral.tcbInfo('sgx', fmspc, now)).value?.document;
    expect([sgx?.tee, sgx?.tdxModule, sgx?.levels[0]?.tdx]).toEqual(['sgx', undefined, undefined]);
    expect((await collateral.qeIdentity('tdx', now)).value?.document).toMatchObject({ id: 'TD_QE', isvProdId: 2 });
    expect((await collateral.qeIdentity('sgx', now)).value?.document).toMatchObject({ id: 'QE', isvProdId: 1 });
  });

  it('are refused where who signed them, or what was signed, is something else', async () => {
    const chain = (signer: { readonly der: Buffer }, of = intel): string => pem([signer, of.rootAuthority]);
    const authority = await issue(intel.rootAuthority, 'CN=Intel SGX TCB Signing Authority', {
      authority: true,
      curve: 'P-256',
    });
    const below = await issue(authority, intel.tcbSigner.subject, { curve: 'P-256' });
    const byUser = await issue(intel.machine, intel.tcbSigner.subject, { curve: 'P-256' });
    const cases: readonly [string, CollateralOptions['tcbInfoSigning'], string][] = [
      ['other text was signed', { signed: JSON.stringify(tcbInfo('tdx', { version: 2 })) }, 'EV_SIGNATURE'],
      ['another key signed', { signer: other.tcbSigner, issuerChain: chain(intel.tcbSigner) }, 'EV_SIGNATURE'],
      [
        'a signer under another root',
        { signer: other.tcbSigner, issuerChain: chain(other.tcbSigner, other) },
        'EV_CERT_CHAIN',
      ],
      ["another's signer, our root beside", { signer: other.tcbSigner }, 'EV_CERT_CHAIN'],
      ['the certificate of a platform', { signer: intel.machine, issuerChain: intel.chain() }, 'EV_CERT_CHAIN'],
      ['an authority of platforms', { signer: intel.platform }, 'EV_CERT_CHAIN'],
      [
        'issued by what is no authority',
        { signer: byUser, issuerChain: pem([byUser, intel.machine, intel.platform]) },
        'EV_CERT_CHAIN',
      ],
      ['an issuer that is left out', { signer: below }, 'EV_CERT_CHAIN'],
      ['no chain', { issuerChain: '' }, 'EV_FORMAT'],
    ];
    for (const [what, signing, code] of cases) {
      const options = { tcbInfoSigning: signing ?? {}, qeIdentitySigning: signing ?? {} };
      expect(await codeOf(from(options).tcbInfo('tdx', fmspc, now)), what).toBe(code);
      if (what !== 'other text was signed') expect(await codeOf(from(options).qeIdentity('sgx', now)), what).toBe(code);
    }
  });

  it('are refused where any of their bytes was changed', async () => {
    const { document, issuerChain = '' } = signedAnswer(intel, 'tcbInfo', tcbInfo('tdx'));
    for (let at = 0; at < document.length; at += 37) {
      const changed = Buffer.from(document);
      changed[at] = (changed[at] ?? 0) ^ 0x01;
      const answers = { tcbInfo: async (): Promise<IntelAnswer> => ({ document: changed, issuerChain }) };
      const code = await codeOf(from({ answers }).tcbInfo('tdx', fmspc, now));
      expect(['EV_SIGNATURE', 'EV_FORMAT'], `byte ${at}`).toContain(code);
    }
  });

  it('are refused where they are about something else than was asked for', async () => {
    const swapped: Partial<IntelCollateralSource> = {
      tcbInfo: (tee, asked) => mintSource(intel).tcbInfo(tee === 'tdx' ? 'sgx' : 'tdx', asked),
      qeIdentity: (tee) => mintSource(intel).qeIdentity(tee === 'tdx' ? 'sgx' : 'tdx'),
      pckRevocationList: (of) => mintSource(intel).pckRevocationList(of === 'platform' ? 'processor' : 'platform'),
    };
    const lying = from({ answers: swapped });
    expect(await codeOf(lying.tcbInfo('tdx', fmspc, now))).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(await codeOf(lying.qeIdentity('sgx', now))).toBe('EV_COLLATERAL_UNAVAILABLE');
    expect(await codeOf(lying.pckRevocationList('platform', now))).toBe('EV_CERT_CHAIN');
    const another = from({ tcbInfo: { fmspc: '00906ED50000', tcbEvaluationDataNumber: 99 } });
    expect((await another.tcbInfo('tdx', fmspc, now)).problem).toMatchObject({
      code: 'EV_COLLATERAL_UNAVAILABLE',
      detail: { expected: 'tdx 50806f000000', actual: 'tdx 00906ed50000' },
    });
    expect(await codeOf(from().tcbInfo('tdx', fmspc, now))).toBe('none');
  });

  it('of unknown versions, statuses and types are refused', async () => {
    const level = { tcb: { isvsvn: 1 }, tcbDate: '2025-01-01T00:00:00Z', tcbStatus: 'Splendid' };
    const infos = [
      { version: 4 },
      { id: 'TDX2' },
      { tcbType: 1 },
      { tcbLevels: [] },
      { fmspc: '00' },
      { issueDate: 'today' },
    ];
    for (const change of infos)
      expect(await codeOf(from({ tcbInfo: change }).tcbInfo('tdx', fmspc, now)), JSON.stringify(change)).toMatch(
        /EV_FORMAT|UNAVAILABLE/,
      );
    for (const change of [{ version: 3 }, { tcbLevels: [level] }, { mrsigner: '00' }, { isvprodid: 'one' }])
      expect(await codeOf(from({ qeIdentity: change }).qeIdentity('tdx', now)), JSON.stringify(change)).toBe(
        'EV_FORMAT',
      );
  });
});

describe('G-19: rollback', () => {
  const numbered = (tcbEvaluationDataNumber: number, issueDate = '2026-01-01T00:00:00Z'): IntelCollateral =>
    from({ tcbInfo: { tcbEvaluationDataNumber, issueDate }, qeIdentity: { tcbEvaluationDataNumber, issueDate } });

  it('to a lower evaluation number is refused over restarts, though signature and dates hold', async () => {
    expect(await codeOf(numbered(17).tcbInfo('tdx', fmspc, now))).toBe('none');
    expect((await numbered(16).tcbInfo('tdx', fmspc, now)).problem).toMatchObject({
      code: 'EV_COLLATERAL_ROLLBACK',
      detail: { expected: 'at least 17', actual: '16' },
    });
    expect(await codeOf(numbered(17).tcbInfo('tdx', fmspc, now))).toBe('none');
    expect(await codeOf(numbered(18).qeIdentity('tdx', now))).toBe('none');
    expect(await codeOf(numbered(17).qeIdentity('tdx', now))).toBe('EV_COLLATERAL_ROLLBACK');
    // What is of SGX has numbers of its own, and so has the other channel.
    expect(await codeOf(numbered(3).tcbInfo('sgx', fmspc, now))).toBe('none');
    const standard = open([mintSource(intel, { tcbInfo: { tcbEvaluationDataNumber: 16 } })], 'standard');
    expect(await codeOf(standard.tcbInfo('tdx', fmspc, now))).toBe('none');
  });

  it('is not made of a document that is issued in the future', async () => {
    expect(await codeOf(numbered(99, '2027-01-01T00:00:00Z').tcbInfo('tdx', fmspc, now))).toBe('none');
    expect(await codeOf(numbered(17).tcbInfo('tdx', fmspc, now))).toBe('none');
  });

  it('of a running service leaves the newer document in use', async () => {
    let number = 17;
    const answers: Partial<IntelCollateralSource> = {
      tcbInfo: (tee, asked) => mintSource(intel, { tcbInfo: { tcbEvaluationDataNumber: number } }).tcbInfo(tee, asked),
    };
    const collateral = from({ answers });
    const later = (minutes: number): Date => new Date(now.getTime() + minutes * 60_000);
    const ask = async (at: Date) => (await collateral.tcbInfo('tdx', fmspc, at)).value?.document.evaluationDataNumber;
    expect(await ask(now)).toBe(17);
    number = 16;
    expect(await ask(later(10))).toBe(17);
    number = 18;
    expect(await ask(later(20))).toBe(18);
  });

  it('to an older revocation list is refused, by number, and by date where numbers are equal', async () => {
    const list = (number: number, thisUpdate: string): IntelCollateral =>
      from({
        rootList: { number, thisUpdate: new Date(thisUpdate) },
        pckList: { number, thisUpdate: new Date(thisUpdate) },
      });
    expect(await codeOf(list(1, '2026-05-01T00:00:00Z').rootRevocationList(now))).toBe('none');
    expect(await codeOf(list(1, '2026-04-30T00:00:00Z').rootRevocationList(now))).toBe('EV_COLLATERAL_ROLLBACK');
    expect(await codeOf(list(2, '2026-04-30T00:00:00Z').rootRevocationList(now))).toBe('none');
    expect(await codeOf(list(1, '2026-05-02T00:00:00Z').rootRevocationList(now))).toBe('EV_COLLATERAL_ROLLBACK');
    expect(await codeOf(list(1, '2026-05-01T00:00:00Z').pckRevocationList('platform', now))).toBe('none');
    expect(await codeOf(list(1, '2026-04-01T00:00:00Z').pckRevocationList('platform', now))).toBe(
      'EV_COLLATERAL_ROLLBACK',
    );
    expect(await codeOf(list(1, '2026-04-01T00:00:00Z').pckRevocationList('processor', now))).toBe('none');
  });
});

describe('revocation lists', () => {
  it('name what they revoke', async () => {
    const collateral = from({ pckList: { revoked: [intel.machine] }, rootList: { revoked: [intel.platform] } });
    const listed = (await collateral.pckRevocationList('platform', now)).value?.document;
    expect([listed?.number, listed?.revoked.size]).toEqual([1n, 1]);
    expect((await collateral.rootRevocationList(now)).value?.revoked.size).toBe(1);
  });

  it('are refused where another key signed them or their issuer is unknown', async () => {
    const wrong = from({ pckList: { signer: other.platform }, rootList: { signer: intel.platform } });
    expect(await codeOf(wrong.pckRevocationList('platform', now))).toBe('EV_SIGNATURE');
    expect(await codeOf(wrong.rootRevocationList(now))).toBe('EV_SIGNATURE');
    const foreign = open([mintSource(other)]);
    expect(await codeOf(foreign.pckRevocationList('processor', now))).toBe('EV_CERT_CHAIN');
    expect(await codeOf(foreign.rootRevocationList(now))).toBe('EV_SIGNATURE');
    const noList: Partial<IntelCollateralSource> = { rootRevocationList: async () => ({ document: Buffer.from('0') }) };
    expect(await codeOf(from({ answers: noList }).rootRevocationList(now))).toBe('EV_FORMAT');
  });

  it('keep their dates for whoever relies on them', async () => {
    const ended = new Date('2026-02-01T00:00:00Z');
    const collateral = from({ pckList: { nextUpdate: ended }, tcbInfo: { nextUpdate: '2026-02-01T00:00:00Z' } });
    expect((await collateral.pckRevocationList('platform', now)).value?.document.nextUpdate).toEqual(ended);
    expect((await collateral.tcbInfo('tdx', fmspc, now)).value?.document.nextUpdate).toEqual(ended);
  });
});

describe('several sources', () => {
  it('are asked in order until one has what verifies', async () => {
    const away: Partial<IntelCollateralSource> = {
      tcbInfo: () => Promise.reject(new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'away')),
    };
    const bad = mintSource(intel, { tcbInfoSigning: { signed: '{}' } });
    const sources = [
      mintSource(intel, { tcbInfo: null }),
      mintSource(intel, { answers: away }),
      bad,
      mintSource(intel),
    ];
    expect(await codeOf(open(sources).tcbInfo('tdx', fmspc, now))).toBe('none');
    expect(await codeOf(open(sources.slice(0, 3)).tcbInfo('tdx', fmspc, now))).toBe('EV_SIGNATURE');
    expect((await open(sources.slice(0, 1)).tcbInfo('tdx', fmspc, now)).problem).toMatchObject({
      code: 'EV_COLLATERAL_UNAVAILABLE',
      detail: { expected: 'one of: test Intel' },
    });
  });

  it('are asked once for many, and not again while an answer or a failure is fresh', async () => {
    let asked = 0;
    let fails = false;
    const counted: Partial<IntelCollateralSource> = {
      qeIdentity: async (tee) => {
        asked += 1;
        if (fails) throw new Error('away');
        return mintSource(intel).qeIdentity(tee);
      },
    };
    const collateral = from({ answers: counted });
    await Promise.all(Array.from({ length: 8 }, () => collateral.qeIdentity('sgx', now)));
    await collateral.qeIdentity('sgx', new Date(now.getTime() + 200_000));
    expect(asked).toBe(1);
    fails = true;
    expect(await codeOf(collateral.qeIdentity('tdx', now))).not.toBe('none');
    await collateral.qeIdentity('tdx', new Date(now.getTime() + 1_000));
    expect(asked).toBe(2);
    // What was verified goes on being used where the source is away.
    expect(await codeOf(collateral.qeIdentity('sgx', new Date(now.getTime() + 3_600_000)))).toBe('none');
    expect(asked).toBe(3);
  });
});
