/**
 * Makes `docs/reference/verdicts.md` from the published evidence vectors: `node scripts/docs/verdicts-page.ts` writes it.
 *
 * @module
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { AttestationRefused, type AttestationService } from '@sealpod/attestation-service';
import {
  type EvidenceInFile,
  learnableInFile,
  offlineConfiguration,
  readEvidenceFile,
  toRequest,
  verifyInFile,
  withOfflineService,
} from '@sealpod/attestation-service/offline';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { failures } from '@sealpod/protocol/verdict';

/** One row of the page. */
interface Vector {
  /** Below the folder of vectors. */
  readonly file: string;
  /** What it is of, where it does not show. */
  readonly tee?: string;
  /** SNP: the certificate beside the report. */
  readonly certificate?: { readonly type: 'VCEK' | 'VLEK'; readonly file: string };
  /** NVIDIA: the report in hexadecimal and its chain beside it. */
  readonly device?: { readonly arch: string; readonly chain: string };
}

const vectors: readonly Vector[] = [
  { file: 'snp/test-report.bin', certificate: { type: 'VCEK', file: 'snp/test-vcek.der' } },
  { file: 'snp/test-report.bin', certificate: { type: 'VCEK', file: 'snp/test-vcek-invalid-legacy.der' } },
  { file: 'snp/test-report.bin', certificate: { type: 'VCEK', file: 'snp/test-vcek-invalid-new.der' } },
  { file: 'snp/test-vlek-report.bin', certificate: { type: 'VLEK', file: 'snp/test-vlek.der' } },
  { file: 'az-snp-vtpm/evidence-v0.json' },
  { file: 'az-snp-vtpm/evidence-v1.json' },
  { file: 'az-snp-vtpm/evidence-v2.json' },
  { file: 'tpm/tpm_evidence.json' },
  { file: 'tdx/tdx_quote_4.dat' },
  { file: 'tdx/tdx_quote_5.dat' },
  { file: 'az-tdx-vtpm/evidence-v0.json' },
  { file: 'az-tdx-vtpm/evidence-v1.json' },
  { file: 'sgx/occlum_quote.dat' },
  { file: 'cca/cca-example-token.cbor', tee: 'cca' },
  { file: 'csv/csv_evidence.json' },
  {
    file: 'nvidia/hopperAttestationReport.txt',
    device: { arch: 'HOPPER', chain: 'nvidia/hopper_cert_chain_case1.txt' },
  },
];

/** The day on which the page looks at the vectors: certificates and lists of some have expired since. */
const now = new Date('2025-06-01T00:00:00Z');
const policies = ['default', 'trustee'] as const;

/** Where the vectors are. The page cannot be made without them. */
export const vectorsPresent = existsSync(vectorPath('expected-claims.json'));

const read = (file: string): Buffer => readFileSync(vectorPath(file));

function evidenceOf({ file, tee, certificate, device }: Vector): EvidenceInFile {
  if (device !== undefined) {
    const evidence = {
      device_evidence_list: [
        {
          arch: device.arch,
          evidence: read(file).toString('utf8').trim(),
          certificate: Buffer.from(read(device.chain)).toString('base64'),
        },
      ],
    };
    return { tee: 'nvidia', evidence };
  }
  const found = readEvidenceFile(read(file), tee);
  if (certificate === undefined) return found;
  const chain = [{ cert_type: certificate.type, data: [...read(certificate.file)] }];
  return { ...found, evidence: { ...(found.evidence as JsonObject), cert_chain: chain } };
}

const short = (value: JsonValue): string => {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > 18 ? `${text.slice(0, 16)}…` : text;
};

/** Status and vector of one appraisal, e.g. `contraindicated (33, 97, 36)`. */
async function appraisal(service: AttestationService, file: EvidenceInFile, own: Buffer | undefined, policy: string) {
  const request = toRequest(file, own === undefined ? {} : { reportData: own });
  const { claims } = await service.evaluate({ evidences: [request], policyIds: [policy], correlationId: 'verdicts' });
  const [submodule] = Object.values(claims.submods);
  const vector = submodule?.['ear.trustworthiness-vector'];
  const numbers = [vector?.executables, vector?.hardware, vector?.configuration].map((claim) => claim ?? 0);
  return `${submodule?.['ear.status']} (${numbers.join(', ')})`;
}

async function rowsOf(vector: Vector): Promise<string[]> {
  const file = evidenceOf(vector);
  const beside = vector.certificate?.file ?? vector.device?.chain;
  const name = `\`${vector.file}\`${beside === undefined ? '' : ` with \`${beside}\``}`;
  const config = {
    ...offlineConfiguration(vectorPath()),
    snp: { sources: [], allowVersion2: true },
    now: () => now,
  };
  return withOfflineService(config, async (service) => {
    // A GPU's claims do not tell its nonce: it is in the request, after the header of four bytes.
    const nonce =
      vector.device === undefined ? undefined : Buffer.from(read(vector.file).toString().trim(), 'hex').subarray(4, 36);
    const verification = await verifyInFile(service, file, nonce === undefined ? {} : { reportData: nonce });
    const refused = failures(verification.verdict);
    if (refused.length > 0) {
      const reasons = refused.map(({ check, code }) => `${check}: \`${code}\``).join(', ');
      return [`| ${name} | ${file.tee} | refused | ${reasons} | | |`];
    }
    const { report_data: text } = verification.submodules[0]?.claims ?? {};
    const own = typeof text === 'string' ? Buffer.from(text, 'hex') : nonce;
    const learned = learnableInFile(verification);
    const claims = Object.entries(learned)
      .map(([id, value]) => `\`${id}\` ${short(Array.isArray(value) ? ((value as JsonValue[])[0] ?? null) : value)}`)
      .join(', ');
    const rows: string[] = [];
    for (const policy of policies) {
      for (const id of Object.keys(learned)) await service.deleteReferenceValue(id);
      const empty = await appraisal(service, file, own, policy);
      for (const [id, value] of Object.entries(learned)) await service.setReferenceValue(id, value);
      const matching = await appraisal(service, file, own, policy);
      const first = rows.length === 0;
      rows.push(
        `| ${first ? name : ''} | ${first ? file.tee : ''} | ${first ? 'verified' : ''} | ${first ? claims : ''} | \`${policy}\`: ${empty} | ${matching} |`,
      );
    }
    return rows;
  }).catch((thrown: unknown) => {
    if (!(thrown instanceof AttestationRefused)) throw thrown;
    return [`| ${name} | ${file.tee} | refused | \`${thrown.code}\` when appraised | | |`];
  });
}

/** The text of the page. */
export async function verdictsPage(): Promise<string> {
  const rows: string[] = [];
  for (const vector of vectors) rows.push(...(await rowsOf(vector)));
  return `# Verdicts

What this release says of evidence that other projects published. The table is made by \`scripts/docs/verdicts-page.ts\` from
the vectors themselves, seen on ${now.toISOString().slice(0, 10)}, without network and each bound to its own report data. Claims
are those that a policy holds against reference values, under the ids of these and cut to their first digits.

The trust vector is (executables, hardware, configuration) in the numbers of AR4SI: 2 to 31 affirm, 32 to 95 warn, from 96 on
it is contraindicated, 0 says nothing. All other claims are 0. \`default\` is our policy; \`trustee\` says what Trustee's own service
says. "Matching" reference values are those that \`sealpod refvalue learn --evidence\` reads off the evidence.

| vector | TEE | verification | claims, or what is refused | without reference values | with matching ones |
| --- | --- | --- | --- | --- | --- |
${rows.join('\n')}

A refused vector gets no token. Where collateral is missing (certificates and lists that the vectors do not hold), the same
evidence verifies with \`sealpod verify --collateral\` once it is there. The VLEK report was asked for at privilege level 3, the
TPM quote has qualifying data that are longer than Trustee's own service takes. What is refused, and by which check:
[refusals](refusals.md).
`;
}

export const verdictsFile = fileURLToPath(new URL('../../docs/reference/verdicts.md', import.meta.url));

if (import.meta.main) {
  if (!vectorsPresent) throw new Error(`there are no vectors at ${vectorPath()}`);
  writeFileSync(verdictsFile, await verdictsPage());
}
