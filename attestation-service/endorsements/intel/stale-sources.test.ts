import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { regularise } from '@sealpod/protocol/rcar';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type CollateralOptions, mintQuote, platform, TestIntel } from '../../verifiers/dcap/testing/mint.ts';
import { tdxVerifier } from '../../verifiers/tdx/index.ts';
import { SeenBefore } from '../seen-before.ts';
import { collateralBundle } from './bundle.ts';
import { cachedSource } from './cached-source.ts';
import { IntelCollateral } from './collateral.ts';
import { provisioningService } from './provisioning-service.ts';
import type { IntelCollateralSource } from './source.ts';
import { intelService, quoteCollateral, type Serve } from './testing/service.ts';

const now = new Date('2026-06-01T00:00:00Z');
const fmspc = platform.fmspc.toString('hex').toUpperCase();
const reportData = Buffer.alloc(48, 7);

/** Collateral that ended before now, of a number. */
function ended(tcbEvaluationDataNumber: number, until = '2026-05-01'): CollateralOptions {
  const document = {
    tcbEvaluationDataNumber,
    issueDate: '2026-01-01T00:00:00Z',
    nextUpdate: `${until}T00:00:00Z`,
  };
  const list = { thisUpdate: new Date('2026-01-01T00:00:00Z'), nextUpdate: new Date(`${until}T00:00:00Z`) };
  return { tcbInfo: document, qeIdentity: document, pckList: list, rootList: list };
}
/** Collateral that is current now, of a number. */
function current(tcbEvaluationDataNumber: number): CollateralOptions {
  const document = { tcbEvaluationDataNumber, issueDate: '2026-05-20T00:00:00Z' };
  const list = { thisUpdate: new Date('2026-05-20T00:00:00Z') };
  return { tcbInfo: document, qeIdentity: document, pckList: list, rootList: list };
}

describe('a stale file before a service', () => {
  let intel: TestIntel;
  let other: TestIntel;
  let folder: string;
  let storage: Storage;
  let server: Server;
  let serve: Serve;
  let asked: number;

  beforeAll(async () => {
    [intel, other] = await Promise.all([TestIntel.create(), TestIntel.create()]);
  });
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'intel-stale-'));
    storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
    asked = 0;
    server = createServer((request, response) => {
      asked += 1;
      void serve(request.url ?? '', response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await storage.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const away: Serve = (_, response) => void response.destroy();
  const bundle = async (options: CollateralOptions): Promise<IntelCollateralSource> => {
    const file = join(folder, 'bundle.json');
    writeFileSync(file, JSON.stringify(await quoteCollateral(intel, 'tdx', 'platform', options)));
    return collateralBundle(file);
  };
  const service = (): IntelCollateralSource => {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const http = { pauseMs: 1, longestPauseMs: 2, retries: 1, timeoutMs: 20_000 };
    return provisioningService({ kind: 'pcs', url, rootListUrl: `${url}/root.der`, http });
  };
  const collateralOf = (...sources: readonly IntelCollateralSource[]): IntelCollateral =>
    new IntelCollateral({ sources, root: intel.root, seen: new SeenBefore(storage, 'intel'), channel: 'early' });

  /** What a quote is refused for, and whether its claims speak of expired collateral. */
  async function judged(collateral: IntelCollateral, acceptExpiredCollateral = false, at = now) {
    const verifier = tdxVerifier({ root: intel.root, collateral, acceptExpiredCollateral });
    const td = { reportData: regularise(reportData, 64) };
    const evidence = { quote: mintQuote(intel, 'tdx-4', { td }).toString('base64') };
    const { verdict, claims } = await verifier.verify(evidence, { reportData, trustedAttestationKeys: [], now: at });
    return {
      refused: failures(verdict).map(({ check, code }) => `${check}: ${code}`),
      details: failures(verdict).map(({ actual = '' }) => actual),
      expired: claims['collateral_expiration_status'],
      number: claims['tcb_eval_num'],
    };
  }
  const allExpired = [
    'revocation list of the root',
    'revocation list of platforms',
    'TCB info',
    'identity of the quoting enclave',
  ].map((name) => `${name}: EV_COLLATERAL_EXPIRED`);

  it('does not hide what the service has: the quote verifies with current collateral', async () => {
    serve = intelService(intel, current(18));
    const found = await judged(collateralOf(await bundle(ended(17)), service()));
    expect(found).toMatchObject({ refused: [], expired: '0', number: 18 });
    expect(asked).toBe(4);
  });

  it('that is current is enough: the service is not asked', async () => {
    serve = away;
    expect(await judged(collateralOf(await bundle(current(17)), service()))).toMatchObject({ refused: [] });
    expect(asked).toBe(0);
  });

  it('is refused as expired where the service is away, and says that it is; accepted by the switch', async () => {
    serve = away;
    const collateral = collateralOf(await bundle(ended(17)), service());
    const found = await judged(collateral);
    expect(found.refused).toEqual(allExpired);
    for (const detail of found.details) expect(detail).toContain('a collateral service could not be asked');
    expect(await judged(collateral, true)).toMatchObject({ refused: [], expired: '1', number: 17 });
  });

  it('and a service that is stale as well: the newer of both, refused or accepted by the switch', async () => {
    serve = intelService(intel, ended(18, '2026-05-15'));
    for (const options of [ended(17), ended(19)]) {
      const collateral = collateralOf(await bundle(options), service());
      expect((await judged(collateral)).refused).toEqual(allExpired);
      const number = Math.max(18, Number(options.tcbInfo?.['tcbEvaluationDataNumber']));
      expect(await judged(collateral, true)).toMatchObject({ refused: [], expired: '1', number });
    }
  });

  it('is not helped by a service that lies: signed by another, of another platform, or rolled back', async () => {
    const lies: readonly [string, Serve, string][] = [
      ['signed by another', intelService(other, current(18)), 'a certificate does not chain to its root'],
      ['no JSON, no list', (_, response) => void response.end('<html>'), ''],
      [
        'of another platform',
        intelService(intel, { ...current(17), tcbInfo: { fmspc: '00906ED50000', tcbEvaluationDataNumber: 18 } }),
        '',
      ],
      ['rolled back, though its dates are current', intelService(intel, current(16)), 'is older than one'],
    ];
    for (const [what, lie, reason] of lies) {
      serve = lie;
      const found = await judged(collateralOf(await bundle(ended(17)), service()));
      expect(found.refused, what).toContain('TCB info: EV_COLLATERAL_EXPIRED');
      expect(found.details.join('\n'), what).toContain(reason);
      const accepted = await judged(collateralOf(await bundle(ended(17)), service()), true);
      expect([accepted.refused, accepted.number], what).toEqual([[], 17]);
    }
  });

  it('is not helped by documents from the future, which nothing accepts', async () => {
    const future = { issueDate: '2026-07-01T00:00:00Z', tcbEvaluationDataNumber: 99 };
    serve = intelService(intel, { ...current(18), tcbInfo: future, qeIdentity: future });
    const collateral = collateralOf(await bundle(ended(17)), service());
    expect((await judged(collateral)).refused).toEqual(allExpired.slice(2));
    expect(await judged(collateral, true)).toMatchObject({ refused: [], number: 17 });
    // Nothing of the future counts as seen.
    serve = intelService(intel, current(18));
    expect(await judged(collateralOf(await bundle(ended(17)), service()))).toMatchObject({ refused: [], number: 18 });
  });

  it('is asked again within minutes once its service is back', async () => {
    serve = away;
    const collateral = collateralOf(await bundle(ended(17)), service());
    expect((await judged(collateral)).refused).toEqual(allExpired);
    serve = intelService(intel, current(18));
    const later = (seconds: number): Date => new Date(now.getTime() + seconds * 1000);
    expect((await judged(collateral, false, later(30))).refused).toEqual(allExpired);
    expect(await judged(collateral, false, later(61))).toMatchObject({ refused: [], number: 18 });
  });

  it('what storage keeps of a service is asked for anew where it is past its date, or never was right', async () => {
    let place = 0;
    const kept = (): IntelCollateralSource => cachedSource(service(), `place ${place}`, storage, () => new Date());
    for (const before of [intelService(intel, ended(17)), intelService(other, current(17))]) {
      place += 1;
      serve = before;
      expect((await judged(collateralOf(kept()))).refused).not.toEqual([]);
      serve = intelService(intel, current(18));
      // As after a restart: only storage knows what was answered before.
      expect(await judged(collateralOf(kept()))).toMatchObject({ refused: [], number: 18 });
      asked = 0;
      expect(await judged(collateralOf(kept()))).toMatchObject({ refused: [] });
      expect(asked).toBe(0);
    }
    // Where the service is away since, what it answered last is used.
    serve = away;
    const end = new Date('2033-02-01T00:00:00Z');
    expect((await judged(collateralOf(kept()), false, end)).refused).toContain('TCB info: EV_COLLATERAL_EXPIRED');
  });

  it('is not made current by what a running service knew: the newest of all that verified is used', async () => {
    serve = intelService(intel, current(18));
    const collateral = collateralOf(await bundle(ended(17)), service());
    expect((await collateral.tcbInfo('tdx', fmspc, now)).value?.document.evaluationDataNumber).toBe(18);
    serve = away;
    const later = new Date(now.getTime() + 3_600_000);
    const found = await collateral.tcbInfo('tdx', fmspc, later);
    expect(found.value?.document.evaluationDataNumber).toBe(18);
  });
});
