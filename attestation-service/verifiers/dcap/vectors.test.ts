import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IntelCollateral } from '../../endorsements/intel/collateral.ts';
import { intelRoot } from '../../endorsements/intel/root.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import { azureTdxVerifier } from '../azure/tdx.ts';
import { tdxVerifier } from '../tdx/index.ts';
import type { DcapRules } from './endorse.ts';

const now = new Date('2026-06-01T00:00:00Z');
let folder: string;
let storage: Storage;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-dcap-'));
  storage = await openStorage({ path: join(folder, 'db.sqlite') });
});
afterAll(async () => {
  await storage.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('recorded quotes', () => {
  const expected = (name: string): Record<string, unknown> =>
    (
      JSON.parse(readFileSync(vectorPath('expected-claims.json'), 'utf8')) as Record<
        string,
        { claims_without_dcap: Record<string, unknown> }
      >
    )[name]?.claims_without_dcap ?? {};
  const none: DcapRules = {
    root: intelRoot(),
    get collateral() {
      return new IntelCollateral({
        sources: [],
        root: intelRoot(),
        seen: new SeenBefore(storage, 'intel'),
        channel: 'none',
      });
    },
    acceptExpiredCollateral: false,
  };

  it.for([
    ['tdx_quote_4.dat', 'CCEL_data'],
    ['tdx_quote_5.dat', undefined],
  ] as const)(
    '%s: claims as upstream has them byte for byte; nothing fails but what there is no collateral for',
    async ([name, log], context) => {
      const file = vectorPath('tdx', name);
      if (!existsSync(file)) context.skip(`no vector at ${file}`);
      const bytes = readFileSync(file);
      const ccel = log && readFileSync(vectorPath('eventlog', log)).toString('base64');
      const evidence = { quote: bytes.toString('base64'), ...(ccel ? { cc_eventlog: ccel } : {}) };
      const { claims, verdict } = await tdxVerifier(none).verify(evidence, { trustedAttestationKeys: [], now });
      const golden = expected(name);
      expect(golden).not.toEqual({});
      for (const [member, value] of Object.entries(golden))
        expect(JSON.stringify(claims[member]), member).toBe(JSON.stringify(value));
      const codesFound = new Set(failures(verdict).map(({ code, check }) => `${code} ${check}`));
      for (const text of [...codesFound].filter((found) => !found.startsWith('EV_COLLATERAL_UNAVAILABLE')))
        expect([
          'EV_BINDING_MISMATCH report data',
          // The log that lies beside the quote is of another boot.
          'EV_EVENTLOG_REPLAY event log',
        ]).toContain(text);
    },
  );

  const goldenFile = vectorPath('tdx', 'parse_tdx_claims_expected.json');
  it.skipIf(!existsSync(goldenFile))(
    `a TD with its log has all claims of upstream, and no other (needs ${goldenFile})`,
    async () => {
      const [quote, log] = [vectorPath('tdx', 'tdx_quote_4.dat'), vectorPath('eventlog', 'CCEL_data')].map((file) =>
        readFileSync(file).toString('base64'),
      );
      const evidence = { quote: quote ?? '', cc_eventlog: log ?? '' };
      const { claims } = await tdxVerifier(none).verify(evidence, { trustedAttestationKeys: [], now });
      // Members of objects come in any order.
      const sorted = (_name: string, value: unknown): unknown =>
        typeof value === 'object' && value !== null && !Array.isArray(value)
          ? Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)))
          : value;
      const golden: unknown = JSON.parse(readFileSync(goldenFile, 'utf8'));
      expect(JSON.stringify(claims, sorted, 2)).toBe(JSON.stringify(golden, sorted, 2));
    },
  );

  it.for(['evidence-v0.json', 'evidence-v1.json'])(
    'az-tdx-vtpm %s: bound to its machine; only collateral is missing',
    async (name, context) => {
      const file = vectorPath('az-tdx-vtpm', name);
      if (!existsSync(file)) context.skip(`no vector at ${file}`);
      const evidence = JSON.parse(readFileSync(file, 'utf8'));
      const expectations = { reportData: Buffer.from('challenge'), trustedAttestationKeys: [], now };
      const { claims, verdict } = await azureTdxVerifier(none).verify(evidence, expectations);
      for (const { code, check } of failures(verdict)) expect(code, check).toBe('EV_COLLATERAL_UNAVAILABLE');
      expect((claims['tpm'] as Record<string, string>)['pcr00']).toMatch(/^782b20b10f55cc46/);
      const part = JSON.parse(JSON.stringify(evidence));
      const other = readFileSync(vectorPath('tdx', 'tdx_quote_4.dat'));
      part.td_quote = typeof part.td_quote === 'string' ? other.toString('base64url') : [...other];
      const mixed = await azureTdxVerifier(none).verify(part, expectations);
      expect(failures(mixed.verdict).map(({ code }) => code)).toContain('EV_PART_MIX');
    },
  );
});
