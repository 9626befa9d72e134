import type { Attester } from '../attester.ts';

/** Upstream's `sample` attester: proves nothing. For protocol tests; never chosen but by an explicit measured switch. */
export function createSampleAttester(): Attester {
  return {
    tee: 'sample',
    prepare: async () => ({}),
    evidence: async (reportData) => ({ report_data: Buffer.from(reportData).toString('base64'), svn: '1' }),
    close: async () => undefined,
  };
}
