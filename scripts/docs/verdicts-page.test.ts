import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { vectorsPresent, verdictsFile, verdictsPage } from './verdicts-page.ts';

describe.skipIf(!vectorsPresent)('docs/reference/verdicts.md (skipped where the vectors are absent)', () => {
  it('is what the verifiers and policies say; write it with: node scripts/docs/verdicts-page.ts', async () => {
    expect(await verdictsPage()).toBe(readFileSync(verdictsFile, 'utf8'));
  }, 120_000);
});
