import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readText } from './context.ts';
import { addPolicyGenerateCommand } from './policy-generate.ts';

type PolicyKind = 'resource' | 'attestation';

interface PolicyDescription {
  readonly kind: PolicyKind;
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

function kindOf(text: string): PolicyKind {
  if (text === 'resource' || text === 'attestation') return text;
  throw new SealpodError('USAGE', 'unknown policy kind', { expected: 'resource or attestation', actual: text });
}

function address(kind: string, id: string): string {
  return `/admin/v1/policies/${kindOf(kind)}/${encodeURIComponent(id)}`;
}

/** `sealpod policy put|get|list|delete|test`. */
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

  policy
    .command('test')
    .description('evaluate a policy against an input without storing either; exits 1 where a resource policy denies')
    .argument('<kind>')
    .requiredOption('--file <file>', 'Rego text')
    .requiredOption(
      '--input <file>',
      'JSON input: token claims for a resource policy, claims for an attestation policy',
    )
    .option('--data <file>', 'JSON data, e.g. {"plugin":"resource","resource-path":["default","key","1"],"query":{}}')
    .addHelpText('after', '\nExample:\n  sealpod policy test resource --file only-web.rego --input claims.json')
    .action(async (kind: string, options: { file: string; input: string; data?: string }, command: Command) => {
      const result = (await kbsClientFor(command).post('/admin/v1/policies/test', {
        kind: kindOf(kind),
        policy: readText(options.file),
        input: parseJsonFile(options.input),
        ...(options.data === undefined ? {} : { data: parseJsonFile(options.data) }),
      })) as { readonly values: Readonly<Record<string, unknown>>; readonly prints: readonly string[] };
      writeResult(
        globalOptions(command).output,
        result,
        ['rule', 'value'],
        [...Object.entries(result.values), ...result.prints.map((text) => ['print', text] as const)].map(
          ([name, value]) => [name, JSON.stringify(value)],
        ),
      );
      if (kind === 'resource' && result.values['data.policy.allow'] !== true) process.exitCode = 1;
    });

  addPolicyGenerateCommand(policy);
}

function parseJsonFile(file: string): unknown {
  const text = readText(file);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SealpodError('USAGE', `${file} is no JSON`, { cause });
  }
}
