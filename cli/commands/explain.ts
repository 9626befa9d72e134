import { SealpodError } from '@sealpod/protocol/errors';
import type { Verdict } from '@sealpod/protocol/verdict';
import { failures } from '@sealpod/protocol/verdict';
import type { Command } from 'commander';
import type { KbsClient } from '../kbs-client/client.ts';
import { globalOptions, kbsClientFor } from './context.ts';

/** One recorded decision, as the key broker keeps it. */
export interface Decision {
  readonly time: string;
  readonly event: string;
  readonly outcome: string;
  readonly code: string;
  readonly correlationId: string;
  readonly subject?: unknown;
  readonly resource?: { readonly path: string; readonly version?: number };
  readonly policy?: { readonly id: string; readonly sha256: string };
  readonly evidenceDigest?: string;
  readonly verdict?: Verdict;
}

/** The decisions of one correlation id, oldest first. */
export async function decisionsOf(client: KbsClient, correlationId: string): Promise<readonly Decision[]> {
  return (await client.get(`/admin/v1/decisions/${encodeURIComponent(correlationId)}`)) as readonly Decision[];
}

async function lastCorrelationId(client: KbsClient): Promise<string> {
  const recent = (await client.get('/admin/v1/decisions?limit=200')) as readonly Decision[];
  const newestFirst = [...recent].sort((one, other) => other.time.localeCompare(one.time));
  const guest = newestFirst.find((decision) => !decision.event.startsWith('admin'));
  if (guest === undefined) throw new SealpodError('NOT_FOUND', 'no guest has asked for anything yet');
  return guest.correlationId;
}

/** Tells decisions for a person: each with its outcome, and what did not pass with expected and actual. */
export function tellDecisions(decisions: readonly Decision[], all: boolean): string {
  const lines: string[] = [];
  for (const decision of decisions) {
    const about = decision.resource === undefined ? '' : ` ${decision.resource.path}`;
    lines.push(
      `${decision.time}  ${decision.event}${about}: ${decision.outcome} ${decision.code === 'OK' ? '' : decision.code}`.trimEnd(),
    );
    if (decision.policy !== undefined)
      lines.push(`  policy ${decision.policy.id} (sha256 ${decision.policy.sha256.slice(0, 16)})`);
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
