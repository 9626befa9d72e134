import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readText } from './context.ts';
import { addPolicyGenerateCommand } from './policy-generate.ts';
import { addPolicyTestCommands, kindOf } from './policy-test.ts';

interface PolicyDescription {
  readonly kind: string;
  readonly id: string;
  readonly sha256: string;
  /** Absent for a text that is built in. */
  readonly updatedAt?: string;
  readonly policy?: string;
}

const columns = ['kind', 'id', 'sha256', 'updated'] as const;
const row = (policy: PolicyDescription): string[] => [
  policy.kind,
  policy.id,
  policy.sha256.slice(0, 16),
  policy.updatedAt ?? 'built in',
];

function address(kind: string, id: string): string {
  return `/admin/v1/policies/${kindOf(kind)}/${encodeURIComponent(id)}`;
}

/** `sealpod policy put|get|list|delete`, and those that others add. */
export function addPolicyCommands(program: Command): void {
  const policy = program
    .command('policy')
    .description(
      'Rego policies: resource (who gets a secret), attestation (what is trustworthy), agent (what a pod may do)',
    );

  policy
    .command('put')
    .description('store a policy; it is compiled first')
    .argument('<kind>', 'resource or attestation')
    .argument('<id>')
    .requiredOption('--file <file>', 'Rego text, - for standard input')
    .addHelpText('after', '\nExample:\n  sealpod policy put resource only-web --file only-web.rego')
    .action(async (kind: string, id: string, options: { file: string }, command: Command) => {
      const stored = (await kbsClientFor(command).put(
        address(kind, id),
        readText(options.file),
        'text/plain',
      )) as PolicyDescription;
      writeResult(globalOptions(command).output, stored, columns, [row(stored)]);
    });

  policy
    .command('get')
    .description('print a policy')
    .argument('<kind>')
    .argument('<id>')
    .addHelpText('after', '\nExample:\n  sealpod policy get attestation default_cpu')
    .action(async (kind: string, id: string, _options: unknown, command: Command) => {
      const found = (await kbsClientFor(command).get(address(kind, id))) as PolicyDescription;
      if (globalOptions(command).output === 'json') writeResult('json', found, [], []);
      else process.stdout.write(found.policy ?? '');
    });

  policy
    .command('list')
    .description('list the policies')
    .addHelpText('after', '\nExample:\n  sealpod policy list')
    .action(async (_options: unknown, command: Command) => {
      const { policies } = (await kbsClientFor(command).get('/admin/v1/policies')) as {
        readonly policies: readonly PolicyDescription[];
      };
      writeResult(globalOptions(command).output, policies, columns, policies.map(row));
    });

  policy
    .command('delete')
    .description('delete a policy; what it guarded is refused from then on')
    .argument('<kind>')
    .argument('<id>')
    .addHelpText('after', '\nExample:\n  sealpod policy delete resource only-web')
    .action(async (kind: string, id: string, _options: unknown, command: Command) => {
      await kbsClientFor(command).delete(address(kind, id));
      writeResult(globalOptions(command).output, { deleted: { kind, id } }, ['kind', 'id'], [[kind, id]]);
    });

  addPolicyTestCommands(policy);
  addPolicyGenerateCommand(policy);
}
