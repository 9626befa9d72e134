import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseQuote } from '@sealpod/protocol/dcap';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collateralBundle } from '../../endorsements/intel/bundle.ts';
import { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { intelRoot } from '../../endorsements/intel/root.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import { sgxVerifier } from '../sgx/index.ts';
import { tdxVerifier } from '../tdx/index.ts';
import type { Verification } from '../verifier.ts';

/** Quotes of real machines, with the collateral that Intel published for them; both under Intel's own root. */
const recorded = join(import.meta.dirname, 'testing/recorded');
let folder: string;
let opened = 0;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-recorded-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const quoteOf = (name: string): Buffer => readFileSync(join(recorded, `${name}.bin`));

async function verified(name: string, at: string, quote = quoteOf(name), of = name): Promise<Verification> {
  // Each has a memory of its own: the files are of different years, and older lists would be a rollback.
  const storage = await openStorage({ path: join(folder, `${opened++}.sqlite`) });
  try {
    const collateral = new IntelCollateral({
      sources: [collateralBundle(join(recorded, `${of}-collateral.json`))],
      root: intelRoot(),
      seen: new SeenBefore(storage, 'intel'),
      channel: 'recorded',
    });
    const rules = { root: intelRoot(), collateral, acceptExpiredCollateral: false };
    const { body } = parseQuote(quote);
    const verifier = body.tee === 'sgx' ? sgxVerifier(rules) : tdxVerifier(rules);
    const expectations = { reportData: body.report.reportData, trustedAttestationKeys: [], now: new Date(at) };
    return await verifier.verify({ quote: quote.toString('base64') }, expectations);
  } finally {
    await storage.close();
  }
}

const codes = ({ verdict }: Verification): string[] => failures(verdict).map(({ check, code }) => `${code} ${check}`);

// Statuses and advisories were held against those that another implementation of Intel's rules gives for the same files.
const current = [
  ['sgx-quote', '2025-06-20T00:00:00Z', 'ConfigurationAndSWHardeningNeeded', ['INTEL-SA-00289', 'INTEL-SA-00615']],
  ['tdx-quote', '2025-06-20T00:00:00Z', 'UpToDate', []],
  ['tdx-quote-1.5ex', '2026-10-09T00:00:00Z', 'UpToDate', []],
] as const;

describe.each(current)('%s with its collateral', (name, at, status, advisories) => {
  it('verifies under Intel’s root, with the status of Intel’s library', async () => {
    const verification = await verified(name, at);
    expect(codes(verification)).toEqual([]);
    expect(verification.claims).toMatchObject({
      tcb_status: status,
      advisory_ids: advisories,
      collateral_expiration_status: '0',
      // SHA-384 of the key of Intel's root, and when that root began.
      root_key_id: '46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5dcf58eef31463613de1570d516200993',
      earliest_issue_date: '2018-05-21T10:45:10Z',
    });
  });

  it('is refused when its collateral has expired, and before it was issued', async () => {
    for (const other of ['2027-06-01T00:00:00Z', '2024-06-01T00:00:00Z'])
      expect(codes(await verified(name, other))).toEqual(
        expect.arrayContaining([
          'EV_COLLATERAL_EXPIRED TCB info',
          'EV_COLLATERAL_EXPIRED identity of the quoting enclave',
          'EV_COLLATERAL_EXPIRED revocation list of platforms',
        ]),
      );
  });

  it('is refused with any byte changed that the machine signed', async () => {
    const { signed } = parseQuote(quoteOf(name));
    // Behind header and descriptor, which say how to read what follows.
    for (let byte = 54; byte < signed.length; byte += 41) {
      const changed = quoteOf(name);
      changed[byte] = (changed[byte] ?? 0) ^ 1;
      expect(codes(await verified(name, at, changed)), `byte ${byte}`).toContain('EV_SIGNATURE quote signature');
    }
  });

  it('collateral of another machine does not serve', async () => {
    const other = name === 'sgx-quote' ? 'tdx-quote' : 'sgx-quote';
    const found = codes(await verified(name, at, quoteOf(name), other));
    expect(found).toContain('EV_COLLATERAL_UNAVAILABLE TCB info');
    expect(found).toContain('EV_COLLATERAL_UNAVAILABLE identity of the quoting enclave');
  });
});

it('a TD on a platform that no level describes is refused, though all that is signed verifies', async () => {
  expect(codes(await verified('tdx-quote-outdated', '2026-02-19T00:00:00Z'))).toEqual(['EV_TCB_STATUS TCB status']);
});
