/**
 * Makes `docs/reference/refusals.md` by verifying mutated evidence of every TEE: `node attestation-service/scripts/refusals-page.ts`
 * writes it.
 *
 * @module
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type MutatedTee, mutations, refusalsOf } from '../verifiers/testing/refusals/index.ts';

/** One TEE's part of the page: what was changed, and what is refused for it. */
export interface Refusals {
  readonly tee: string;
  /** Nothing, where the genuine evidence is accepted. */
  readonly genuine: readonly string[];
  readonly rows: readonly { readonly what: string; readonly refused: readonly string[] }[];
}

/** Verifies all evidence of one TEE. */
export async function refusalsOfTee(tee: string): Promise<Refusals> {
  const mutated = await mutations[tee]?.();
  if (mutated === undefined) throw new RangeError(`no mutations of TEE ${tee}`);
  const texts = async (mutation?: MutatedTee['mutations'][number]): Promise<string[]> =>
    (await refusalsOf(mutated, mutation)).map(({ check, code }) => `${check}: \`${code}\``);
  const rows: { what: string; refused: string[] }[] = [];
  for (const mutation of mutated.mutations) rows.push({ what: mutation.what, refused: await texts(mutation) });
  return { tee, genuine: await texts(), rows };
}

/** The text of the page. */
export function refusalsPage(tees: readonly Refusals[]): string {
  const count = tees.reduce((sum, { rows }) => sum + rows.length, 0);
  const parts = tees.map(({ tee, rows }) => {
    const lines = rows.map(({ what, refused }) => `| ${what} | ${refused.join(', ')} |`);
    return `## ${tee}\n\n| changed | refused by |\n| --- | --- |\n${lines.join('\n')}\n`;
  });
  return `# Refusals

What each verifier refuses, and by which check and [reason code](reason-codes.md). Evidence of every TEE is minted under a test's
own authorities, accepted as it is, and refused in each of these ${count} ways, with one thing changed: mostly before it is
signed, so that every signature holds. Where several checks fail, the first is the code of the verdict. The page is made by
\`attestation-service/scripts/refusals-page.ts\`, and a test holds the verifiers to it.

${parts.join('\n')}`;
}

export const refusalsFile = fileURLToPath(new URL('../../docs/reference/refusals.md', import.meta.url));

if (import.meta.main) {
  const tees: Refusals[] = [];
  for (const tee of Object.keys(mutations)) tees.push(await refusalsOfTee(tee));
  writeFileSync(refusalsFile, refusalsPage(tees));
}
