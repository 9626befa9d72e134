import { existsSync, readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures } from '@sealpod/protocol/verdict';
import { describe, expect, it } from 'vitest';
import { amdRoot } from '../snp/root.ts';
import { azureSnpVerifier } from './snp.ts';

const present = existsSync(vectorPath('expected-claims.json'));
const verifier = azureSnpVerifier({ allowVersion2: false, requireRevocationList: false, root: amdRoot }, []);
const now = new Date('2025-06-01T00:00:00Z');

interface Golden {
  readonly expected_report_data_hex: string;
  readonly claims: JsonObject;
}
const golden = (name: string): Golden =>
  (JSON.parse(readFileSync(vectorPath('expected-claims.json'), 'utf8')) as Record<string, Golden>)[
    `az-snp-vtpm/${name}`
  ] as Golden;
const read = (name: string): JsonObject =>
  JSON.parse(readFileSync(vectorPath(`az-snp-vtpm/${name}`), 'utf8')) as JsonObject;

async function refusals(evidence: JsonValue, reportData: Buffer, initDataDigest?: Buffer): Promise<string[]> {
  try {
    const { verdict } = await verifier.verify(evidence, {
      reportData,
      ...(initDataDigest === undefined ? {} : { initDataDigest }),
      trustedAttestationKeys: [],
      now,
    });
    return failures(verdict).map(({ check, code }) => `${check}: ${code}`);
  } catch (thrown) {
    if (thrown instanceof SealpodError) return [`thrown: ${thrown.code}`];
    throw thrown;
  }
}

describe.skipIf(!present)('evidence of Azure SNP machines (skipped where the vectors are absent)', () => {
  const versions = ['evidence-v0.json', 'evidence-v1.json', 'evidence-v2.json'];

  it.each(versions)('%s: claims are byte for byte those of the golden file', async (name) => {
    const { expected_report_data_hex: expected, claims } = golden(name);
    const reportData = Buffer.from(expected, 'hex');
    const verification = await verifier.verify(read(name), { reportData, trustedAttestationKeys: [], now });
    expect(failures(verification.verdict)).toEqual([]);
    const { sealpod, ...upstream } = verification.claims;
    expect(upstream).toEqual(claims);
    expect(sealpod).toMatchObject({ generation: 'Milan', signing_key: 'VCEK' });
  });

  const flip = (hex: string, at: number): string => {
    const bytes = Buffer.from(hex, 'hex');
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    return bytes.toString('hex');
  };
  const flip64 = (text: string, at: number): string =>
    Buffer.from(flip(Buffer.from(text, 'base64url').toString('hex'), at), 'hex').toString('base64url');
  const quoteWith = (evidence: JsonObject, change: Partial<Record<'signature' | 'message' | 'pcrs', JsonValue>>) => ({
    ...evidence,
    tpm_quote: { ...(evidence['tpm_quote'] as JsonObject), ...change },
  });
  const quoted = (evidence: JsonObject) =>
    evidence['tpm_quote'] as { signature: string; message: string; pcrs: string[] };

  it('each part changed is refused, with a code of its own', async () => {
    const v2 = read('evidence-v2.json');
    const v1 = read('evidence-v1.json');
    const reportData = Buffer.from(golden('evidence-v2.json').expected_report_data_hex, 'hex');
    const { signature, message, pcrs } = quoted(v2);
    const hcl = String(v2['hcl_report']);
    const cases: [string, JsonValue, string][] = [
      ['signature of the quote', quoteWith(v2, { signature: flip(signature, 5) }), 'quote signature: EV_SIGNATURE'],
      ['magic of the quote', quoteWith(v2, { message: flip(message, 0) }), 'quote structure: EV_SIGNATURE'],
      ['qualifying data', quoteWith(v2, { message: flip(message, 50) }), 'report data: EV_BINDING_MISMATCH'],
      [
        'a register',
        quoteWith(v2, { pcrs: [flip(pcrs[0] ?? '', 3), ...pcrs.slice(1)] }),
        'register values: EV_SIGNATURE',
      ],
      [
        'registers in another order (confusion of positions)',
        quoteWith(v2, { pcrs: [pcrs[1] ?? '', pcrs[0] ?? '', ...pcrs.slice(2)] }),
        'register values: EV_SIGNATURE',
      ],
      ['fewer registers', quoteWith(v2, { pcrs: pcrs.slice(0, 8) }), 'thrown: EV_FORMAT'],
      ['the variable data', { ...v2, hcl_report: flip64(hcl, 1236 + 20) }, 'thrown: EV_FORMAT'],
      [
        'the key in the variable data',
        { ...v2, hcl_report: flip64(hcl, 1236 + 120) },
        'binding of the virtual TPM: EV_PART_MIX',
      ],
      ['the report', { ...v2, hcl_report: flip64(hcl, 32 + 0x90) }, 'report signature: EV_SIGNATURE'],
      ['the type of the report', { ...v2, hcl_report: flip64(hcl, 32 + 1184 + 8) }, 'HCL report: EV_FORMAT'],
      ['the header', { ...v2, hcl_report: flip64(hcl, 0) }, 'thrown: EV_FORMAT'],
      ['the certificate', { ...v2, vcek: flip64(String(v2['vcek']), 1200) }, 'certificate chain: EV_CERT_CHAIN'],
      ['the certificate of another machine', { ...v2, vcek: v1['vcek'] ?? null }, 'chip id: EV_PART_MIX'],
      [
        'the report of another machine',
        { ...v2, hcl_report: v1['hcl_report'] ?? null },
        'quote signature: EV_SIGNATURE',
      ],
      ['the quote of another machine', { ...v2, tpm_quote: v1['tpm_quote'] ?? null }, 'quote signature: EV_SIGNATURE'],
      ['the version', { ...v2, version: 3 }, 'thrown: EV_FORMAT'],
    ];
    for (const [what, evidence, expected] of cases)
      expect(await refusals(evidence, reportData), what).toContain(expected);
  });

  it('another session, initdata that was not measured, and version 2 without user data are refused', async () => {
    const v2 = read('evidence-v2.json');
    const reportData = Buffer.from(golden('evidence-v2.json').expected_report_data_hex, 'hex');
    const other = Buffer.alloc(48, 7);
    expect(await refusals(v2, other)).toEqual(['report data: EV_BINDING_MISMATCH', 'user data: EV_BINDING_MISMATCH']);
    expect(await refusals(v2, reportData, Buffer.alloc(32, 1))).toEqual(['initdata: INITDATA_DIGEST']);
    const relabelled = { ...read('evidence-v1.json'), version: 2 };
    const challenge = Buffer.from(golden('evidence-v1.json').expected_report_data_hex, 'hex');
    expect(await refusals(relabelled, challenge)).toEqual(['user data: EV_BINDING_MISMATCH']);
  });

  it('malformed members are refused by name', async () => {
    for (const name of versions) {
      const evidence = read(name);
      for (const member of Object.keys(evidence).filter((key) => key !== 'version'))
        for (const value of [null, 5, [], {}, '', 'x'])
          expect(await refusals({ ...evidence, [member]: value }, Buffer.alloc(48)), `${name} ${member}`).toEqual([
            'thrown: EV_FORMAT',
          ]);
    }
  });
});
