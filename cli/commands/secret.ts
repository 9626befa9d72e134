import type { ResourceMetadata } from '@sealpod/kbs/resources';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readBytes } from './context.ts';

const namePattern = /^[a-zA-Z0-9_-]+[a-zA-Z0-9_.-]*$/;

/** Checks a resource path before anything is sent. @throws SealpodError RES_NAME */
export function resourcePath(text: string): string {
  const path = text.replace(/^kbs:\/\/\//, '');
  const segments = path.split('/');
  if (segments.length !== 3 || !segments.every((segment) => namePattern.test(segment))) {
    throw new SealpodError('RES_NAME', 'not a resource path', {
      expected: 'repository/type/tag or kbs:///repository/type/tag',
      actual: text,
    });
  }
  return path;
}

const columns = ['path', 'bytes', 'version', 'policy', 'updated'] as const;
const row = (resource: ResourceMetadata): string[] => [
  resource.path,
  String(resource.size),
  String(resource.version),
  resource.policy ?? '(default)',
  resource.updatedAt,
];

/** `sealpod secret put|get|list|delete`. */
export function addSecretCommands(program: Command): void {
  const secret = program.command('secret').description('secrets that the key broker releases to attested guests');

  secret
    .command('put')
    .description('store a secret')
    .argument('<path>', 'repository/type/tag')
    .requiredOption('--file <file>', 'file with the secret, - for standard input (never an argument)')
    .option('--policy <id>', 'bind a resource policy to it; without one the policy resource-policy decides')
    .addHelpText('after', '\nExample:\n  head -c 32 /dev/urandom | sealpod secret put default/key/1 --file -')
    .action(async (path: string, options: { file: string; policy?: string }, command: Command) => {
      const query = options.policy === undefined ? '' : `?policy=${encodeURIComponent(options.policy)}`;
      const stored = (await kbsClientFor(command).put(
        `/admin/v1/resources/${resourcePath(path)}${query}`,
        readBytes(options.file),
      )) as ResourceMetadata;
      writeResult(globalOptions(command).output, stored, columns, [row(stored)]);
    });

  secret
    .command('get')
    .description('describe a secret; its value goes to attested guests only')
    .argument('<path>')
    .addHelpText('after', '\nExample:\n  sealpod secret get default/key/1 -o json')
    .action(async (path: string, _options: unknown, command: Command) => {
      const resource = (await kbsClientFor(command).get(
        `/admin/v1/resources/${resourcePath(path)}`,
      )) as ResourceMetadata;
      writeResult(globalOptions(command).output, resource, columns, [row(resource)]);
    });

  secret
    .command('list')
    .description('list the secrets, without their values')
    .addHelpText('after', '\nExample:\n  sealpod secret list')
    .action(async (_options: unknown, command: Command) => {
      const { resources } = (await kbsClientFor(command).get('/admin/v1/resources')) as {
        readonly resources: readonly ResourceMetadata[];
      };
      writeResult(globalOptions(command).output, resources, columns, resources.map(row));
    });

  secret
    .command('delete')
    .description('delete a secret with all its versions')
    .argument('<path>')
    .addHelpText('after', '\nExample:\n  sealpod secret delete default/key/1')
    .action(async (path: string, _options: unknown, command: Command) => {
      await kbsClientFor(command).delete(`/admin/v1/resources/${resourcePath(path)}`);
      writeResult(globalOptions(command).output, { deleted: resourcePath(path) }, ['deleted'], [[resourcePath(path)]]);
    });
}
