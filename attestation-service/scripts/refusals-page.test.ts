import { readFileSync } from 'node:fs';
import { teeNames } from '@sealpod/protocol/rcar';
import { describe, expect, it } from 'vitest';
import { mutations } from '../verifiers/testing/refusals/index.ts';
import { type Refusals, refusalsFile, refusalsOfTee, refusalsPage } from './refusals-page.ts';

const seen: Refusals[] = [];

describe('evidence of every TEE, mutated', () => {
  it.each(Object.keys(mutations))(
    '%s: accepted as it is, refused in fifteen ways and more',
    async (tee) => {
      const refusals = await refusalsOfTee(tee);
      seen.push(refusals);
      expect(refusals.genuine).toEqual([]);
      expect(refusals.rows.filter(({ refused }) => refused.length === 0)).toEqual([]);
      expect(refusals.rows.length).toBeGreaterThanOrEqual(15);
      expect(new Set(refusals.rows.map(({ what }) => what)).size).toBe(refusals.rows.length);
    },
    120_000,
  );

  it('none of the TEEs that there are verifiers for is left out', () => {
    expect(Object.keys(mutations).sort()).toEqual([...teeNames].sort());
  });

  it('docs/reference/refusals.md says so; write it with: node attestation-service/scripts/refusals-page.ts', () => {
    expect(refusalsPage(seen)).toBe(readFileSync(refusalsFile, 'utf8'));
  });
});
