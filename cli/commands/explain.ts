import type { Decision } from '@sealpod/kbs/audit';
import type { KbsClient } from '@sealpod/kbs-client';
import { SealpodError } from '@sealpod/protocol/errors';
import { reasonCodes } from '@sealpod/protocol/reason-codes';
import type { SandboxStatus } from '@sealpod/protocol/status';
import type { Verdict } from '@sealpod/protocol/verdict';
import { failures } from '@sealpod/protocol/verdict';
import type { Command } from 'commander';
import { globalOptions, kbsClientFor } from './context.ts';
import { readStarts } from './pod-starts.ts';

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

/** A correlation id, or the hash of a token that came without one: what decisions are recorded by. */
const correlationPattern = /^(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64})$/;

/** The newest start of a pod. @throws SealpodError NOT_FOUND */
async function startOf(name: string, command: Command): Promise<SandboxStatus> {
  const starts = await readStarts(command, name);
  const newest = starts.at(-1);
  if (newest !== undefined) return newest;
  throw new SealpodError('NOT_FOUND', `nothing is known of a start of pod ${name}`, {
    expected: 'a correlation id, or a pod [NAMESPACE/]NAME that `sealpod status --pods` lists',
    actual: name,
  });
}

/** Tells why a pod does not start, where no key broker was asked yet or it said nothing of it. */
function tellRefusal({ pod, refusal, correlationId }: SandboxStatus): string {
  const about = `${pod.namespace === '' ? '' : `${pod.namespace}/`}${pod.name}`;
  if (refusal === undefined)
    return `${about}: nothing was refused${correlationId === undefined ? ', and its guest has not attested' : ''}\n`;
  const { code, message, count, at, container } = refusal;
  const times = count > 1 ? `, ${count} times` : '';
  return [
    `${new Date(at).toISOString()}  ${about}${container === undefined ? '' : ` container ${container}`}: ${code}${times}`,
    `  ${message}`,
    `  to do     ${reasonCodes[code][1]}`,
    '',
  ].join('\n');
}

/** `sealpod explain`. */
export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .description('why a guest got a secret or was refused: the recorded decisions of a correlation id or a pod')
    .argument('[id-or-pod]', 'correlation id as an event or an error names it, or a pod as [NAMESPACE/]NAME')
    .option('--last', 'the newest decision that concerns a guest')
    .option('--all', 'also the checks that passed')
    .option('--kubeconfig <file>', "the cluster of the pod (default: the environment's own pods)")
    .addHelpText('after', '\nExamples:\n  sealpod explain 7c1f0a… --all\n  sealpod explain shop/web-0')
    .action(async (given: string | undefined, options: { all?: boolean; last?: boolean }, command: Command) => {
      if ((given === undefined) === (options.last !== true))
        throw new SealpodError('USAGE', 'give either a correlation id, a pod or --last');
      const isPod = given !== undefined && !correlationPattern.test(given);
      const start = isPod ? await startOf(given, command) : undefined;
      const known = start === undefined ? given : start.correlationId;
      const client = start !== undefined && known === undefined ? undefined : kbsClientFor(command);
      const decisions =
        client === undefined ? [] : await decisionsOf(client, known ?? (await lastCorrelationId(client)));
      if (globalOptions(command).output === 'json') {
        const value = start === undefined ? decisions : { pod: start.pod, refusal: start.refusal, decisions };
        process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
        return;
      }
      if (start !== undefined) process.stdout.write(tellRefusal(start));
      if (decisions.length > 0) process.stdout.write(tellDecisions(decisions, options.all === true));
    });
}
