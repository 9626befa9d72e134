import type { Decision } from '@sealpod/kbs/audit';
import type { KbsClient } from '@sealpod/kbs-client';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Verdict } from '@sealpod/protocol/verdict';
import { failures } from '@sealpod/protocol/verdict';
import type { Command } from 'commander';
import { globalOptions, kbsClientFor } from './context.ts';

/** The decisions of one correlation id, oldest first. */
export async function decisionsOf(client: KbsClient, correlationId: string): Promise<readonly Decision[]> {
  return readDecisions(await client.get(`/admin/v1/decisions/${encodeURIComponent(correlationId)}`));
}

function readDecisions(answer: unknown): readonly Decision[] {
  return (answer as { readonly decisions: readonly Decision[] }).decisions;
}

async function lastCorrelationId(client: KbsClient): Promise<string> {
  const newestFirst = readDecisions(await client.get('/admin/v1/decisions?limit=1000'));
  const guest = newestFirst.find((decision) => decision.subject.administrator === undefined);
  if (guest === undefined) throw new SealpodError('NOT_FOUND', 'no guest has asked for anything yet');
  return guest.correlationId;
}

/** Tells decisions for a person: each with its outcome, and what did not pass with expected and actual. */
export function tellDecisions(decisions: readonly Decision[], all: boolean): string {
  const lines: string[] = [];
  for (const decision of decisions) {
    const about = decision.resource?.path ?? decision.target ?? '';
    const what = [decision.kind, decision.action, about].filter(Boolean).join(' ');
    lines.push(`${decision.time}  ${what}: ${decision.outcome}`);
    const submods = Object.entries(decision.subject.submods ?? {}).map(([name, status]) => `${name} ${status}`);
    if (submods.length > 0) lines.push(`  guest is ${submods.join(', ')}`);
    if (decision.policy !== undefined)
      lines.push(`  policy ${decision.policy.id} (sha256 ${decision.policy.sha256.slice(0, 16)}…)`);
    if (decision.verdict === undefined) continue;
    for (const verdict of all ? leaves(decision.verdict) : failures(decision.verdict))
      lines.push(...tellVerdict(verdict));
  }
  return `${lines.join('\n')}\n`;
}

function leaves(verdict: Verdict): Verdict[] {
  const children = verdict.children ?? [];
  return children.length === 0 ? [verdict] : children.flatMap(leaves);
}

function tellVerdict(verdict: Verdict): string[] {
  const lines = [
    `  ${verdict.code === 'OK' ? 'ok ' : 'NOT'} ${verdict.check}${verdict.code === 'OK' ? '' : `: ${verdict.code}`}`,
  ];
  if (verdict.code === 'OK') return lines;
  if (verdict.expected !== undefined) lines.push(`      expected  ${verdict.expected}`);
  if (verdict.actual !== undefined) lines.push(`      actual    ${verdict.actual}`);
  if (verdict.source !== undefined) lines.push(`      source    ${verdict.source}`);
  if (verdict.fix !== undefined) lines.push(`      to do     ${verdict.fix}`);
  return lines;
}

/** `sealpod explain`. */
export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .description('why a guest got a secret or was refused: the recorded decisions of a correlation id')
    .argument('[correlation-id]', 'as the error in the pod event or in the guest names it')
    .option('--last', 'the newest decision that concerns a guest')
    .option('--all', 'also the checks that passed')
    .addHelpText('after', '\nExample:\n  sealpod explain 7c1f0a… --all')
    .action(async (given: string | undefined, options: { all?: boolean; last?: boolean }, command: Command) => {
      const client = kbsClientFor(command);
      if ((given === undefined) === (options.last !== true))
        throw new SealpodError('USAGE', 'give either a correlation id or --last');
      const decisions = await decisionsOf(client, given ?? (await lastCorrelationId(client)));
      if (globalOptions(command).output === 'json') process.stdout.write(`${JSON.stringify(decisions, null, 2)}\n`);
      else process.stdout.write(tellDecisions(decisions, options.all === true));
    });
}
