import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readText } from './context.ts';
import { verifiedFile } from './verify.ts';

interface Step {
  readonly at: string;
  readonly by: { readonly subject: string; readonly key: string };
}

interface CandidateDescription {
  readonly id: string;
  readonly state: string;
  readonly values: Readonly<Record<string, unknown>>;
  readonly scope?: string;
  readonly origin:
    | { readonly kind: 'given'; readonly source: string }
    | { readonly kind: 'evidence'; readonly tee: string; readonly correlationId: string };
  readonly learned: Step;
  readonly approvals: readonly Step[];
}

interface Review {
  readonly candidate: CandidateDescription;
  readonly differences: readonly {
    readonly id: string;
    readonly change: string;
    readonly current?: unknown;
    readonly learned: unknown;
    readonly added: readonly unknown[];
    readonly missing: readonly unknown[];
  }[];
  readonly approvals: { readonly have: number; readonly need: number };
}

const states = ['quarantined', 'approved', 'promoted', 'retired'];
const root = '/admin/v1/reference-value-candidates';
const address = (id: string, step = ''): string => `${root}/${encodeURIComponent(id)}${step === '' ? '' : `/${step}`}`;

const columns = ['candidate', 'state', 'scope', 'components', 'approvals', 'learned', 'from'] as const;
const row = (candidate: CandidateDescription): string[] => [
  candidate.id,
  candidate.state,
  candidate.scope ?? 'all',
  String(Object.keys(candidate.values).length),
  candidate.approvals.map(({ by }) => by.subject).join(', ') || 'none',
  candidate.learned.at,
  candidate.origin.kind === 'given'
    ? candidate.origin.source
    : `${candidate.origin.tee} evidence of ${candidate.origin.correlationId}`,
];

/** `sealpod refvalue list --candidates`. */
export async function listCandidates(command: Command, state: string | undefined): Promise<void> {
  if (state !== undefined && !states.includes(state))
    throw new SealpodError('USAGE', 'unknown state', { expected: states.join(', '), actual: state });
  const { candidates } = (await kbsClientFor(command).get(root)) as {
    readonly candidates: readonly CandidateDescription[];
  };
  const wanted = candidates.filter((candidate) => state === undefined || candidate.state === state);
  writeResult(globalOptions(command).output, wanted, columns, wanted.map(row));
}

interface LearnOptions {
  readonly file?: string;
  readonly from?: string;
  readonly tee?: string;
  readonly evidence?: string;
  readonly collateral?: string;
  readonly scope?: string;
  readonly expires?: string;
}

/** What is sent to be learned. @throws SealpodError USAGE unless there is exactly one source */
async function learnRequest(options: LearnOptions): Promise<object> {
  const { file, from, tee, evidence, collateral } = options;
  const sources = [file, from, evidence ?? tee].filter((source) => source !== undefined);
  if (sources.length !== 1 || (collateral !== undefined && evidence === undefined)) {
    throw new SealpodError('USAGE', 'give one source of values', {
      expected:
        '--file FILE, --from CORRELATION-ID, --tee TEE, or --evidence FILE [--collateral DIRECTORY] [--tee TEE]',
    });
  }
  if (file !== undefined) return { values: valuesOf(readText(file), file), source: file };
  if (from !== undefined) return { evidence: { correlationId: from } };
  if (evidence === undefined) return { evidence: { tee } };
  const verification = await verifiedFile(evidence, {
    ...(collateral === undefined ? {} : { collateral }),
    ...(tee === undefined ? {} : { tee }),
  });
  const { learnableInFile } = await import('@sealpod/attestation-service/offline');
  return { values: learnableInFile(verification), source: evidence };
}

/** Reads what `sealpod podvm measure` writes, or a plain object of reference values. */
function valuesOf(text: string, name: string): unknown {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new SealpodError('USAGE', `${name} is no JSON`, { cause });
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw new SealpodError('USAGE', `${name} holds no reference values`, { expected: 'a JSON object' });
  return 'reference_values' in content ? content.reference_values : content;
}

/** `sealpod refvalue learn|diff|approve|promote|retire`. */
export function addCandidateCommands(refvalue: Command): void {
  refvalue
    .command('learn')
    .description('put measured values into quarantine: nothing is trusted before they are approved and promoted')
    .option('--file <file>', 'reference-values.json of `sealpod podvm measure`, or {"id": value, …}')
    .option('--from <correlation-id>', 'what the key broker verified of this guest')
    .option('--tee <tee>', 'what the key broker verified last of this TEE; with --evidence, the TEE of the file')
    .option('--evidence <file>', 'evidence in a file, verified on this machine as `sealpod verify` does')
    .option('--collateral <directory>', 'certificates and lists for --evidence')
    .option('--scope <policy>', 'for this attestation policy only, e.g. default')
    .option('--expires <time>', 'RFC 3339 time after which the values count no more')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod refvalue learn --file reference-values.json\n  sealpod refvalue learn --tee snp --expires 2027-06-30T00:00:00Z',
    )
    .action(async (options: LearnOptions, command: Command) => {
      const { scope, expires } = options;
      const request = await learnRequest(options);
      const candidate = (await kbsClientFor(command).post(root, {
        ...request,
        ...(scope === undefined ? {} : { scope }),
        ...(expires === undefined ? {} : { expiresAt: expires }),
      })) as CandidateDescription;
      writeResult(globalOptions(command).output, candidate, columns, [row(candidate)]);
    });

  refvalue
    .command('diff')
    .argument('<candidate>')
    .description('what promoting a candidate would change, component by component; exits 1 where it changes nothing')
    .addHelpText('after', '\nExample:\n  sealpod refvalue diff 4f1c22ab90d3')
    .action(async (id: string, _options: unknown, command: Command) => {
      const review = (await kbsClientFor(command).get(address(id))) as Review;
      const text = (values: readonly unknown[]): string =>
        values.map((value) => JSON.stringify(value)).join(', ') || '-';
      writeResult(
        globalOptions(command).output,
        review,
        ['component', 'change', 'would be accepted', 'accepted now and not learned'],
        review.differences.map(({ id: name, change, added, missing }) => [name, change, text(added), text(missing)]),
      );
      if (review.differences.every(({ change }) => change === 'unchanged')) process.exitCode = 1;
    });

  const steps = [
    {
      name: 'approve',
      description: 'agree to a candidate; each administrator key counts once',
    },
    {
      name: 'promote',
      description: 'bring an approved candidate into use',
    },
    {
      name: 'retire',
      description: 'take a candidate out of use: what only it brought is accepted no more',
    },
  ] as const;
  for (const { name, description } of steps) {
    const step = refvalue.command(name).argument('<candidate>').description(description);
    if (name === 'promote') step.option('--replace', 'accept only what was learned, instead of that too');
    step
      .addHelpText('after', `\nExample:\n  sealpod refvalue ${name} 4f1c22ab90d3`)
      .action(async (id: string, options: { replace?: boolean }, command: Command) => {
        const body = options.replace === true ? { mode: 'replace' } : {};
        const candidate = (await kbsClientFor(command).post(address(id, name), body)) as CandidateDescription;
        writeResult(globalOptions(command).output, candidate, columns, [row(candidate)]);
      });
  }
}
