import type { KbsClient } from '@sealpod/kbs-client';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readText } from './context.ts';

interface ReferenceValueDescription {
  readonly id: string;
  readonly value: unknown;
  readonly version: number;
  readonly expiresAt: string | null;
  readonly updatedAt: string;
}

/** The file that `sealpod podvm measure` writes. */
export interface ReferenceValuesFile {
  readonly version: 1;
  readonly image: string;
  readonly reference_values: Readonly<Record<string, unknown>>;
}

const columns = ['id', 'value', 'version', 'expires'] as const;
const row = (value: ReferenceValueDescription): string[] => [
  value.id,
  JSON.stringify(value.value),
  String(value.version),
  value.expiresAt ?? 'never',
];
const address = (id: string): string => `/admin/v1/reference-values/${encodeURIComponent(id)}`;

/** Reads a file of reference values. @throws SealpodError USAGE where it is not one. */
export function parseReferenceValuesFile(text: string, name: string): ReferenceValuesFile {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new SealpodError('USAGE', `${name} is no JSON`, { cause });
  }
  const file = content as Partial<ReferenceValuesFile> | null;
  if (file === null || typeof file !== 'object' || file.version !== 1 || typeof file.reference_values !== 'object') {
    throw new SealpodError('USAGE', `${name} holds no reference values`, {
      expected: '{"version":1,"reference_values":{…}} as `sealpod podvm measure` writes it',
      actual: text.slice(0, 80),
    });
  }
  return file as ReferenceValuesFile;
}

/** Registers each value of a file, replacing what was there under its id. */
export async function registerReferenceValues(client: KbsClient, file: ReferenceValuesFile): Promise<void> {
  for (const [id, value] of Object.entries(file.reference_values)) await client.put(address(id), { value });
}

/** Adds `value` to the list under `id`, keeping what is there. */
export async function addReferenceValue(client: KbsClient, id: string, value: string): Promise<void> {
  let list: unknown[] = [];
  try {
    const present = ((await client.get(address(id))) as ReferenceValueDescription).value;
    list = Array.isArray(present) ? present : [present];
  } catch (error) {
    if (!(error instanceof SealpodError && (error.code === 'NOT_FOUND' || error.code === 'RV_NOT_LOADED'))) throw error;
  }
  if (!list.includes(value)) await client.put(address(id), { value: [...list, value] });
}

/** `sealpod refvalue put|get|list|delete`. */
export function addReferenceValueCommands(program: Command): void {
  const refvalue = program.command('refvalue').description('reference values: what measured components must be');

  refvalue
    .command('put')
    .description('register reference values: a whole file, or one id with its values')
    .argument('[id]')
    .argument('[values...]', 'allowed values')
    .option('--file <file>', 'reference-values.json of `sealpod podvm measure`')
    .option('--expires <time>', 'RFC 3339 time after which the value counts no more')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod refvalue put --file reference-values.json\n  sealpod refvalue put tpm_initdata 3f…a1',
    )
    .action(
      async (
        id: string | undefined,
        values: readonly string[],
        options: { file?: string; expires?: string },
        command: Command,
      ) => {
        const client = kbsClientFor(command);
        if (options.file !== undefined && id === undefined) {
          const file = parseReferenceValuesFile(readText(options.file), options.file);
          await registerReferenceValues(client, file);
          const ids = Object.keys(file.reference_values);
          writeResult(
            globalOptions(command).output,
            { registered: ids },
            ['registered'],
            ids.map((name) => [name]),
          );
          return;
        }
        if (id === undefined || values.length === 0 || options.file !== undefined) {
          throw new SealpodError('USAGE', 'give either --file or an id with values');
        }
        const stored = (await client.put(address(id), {
          value: values,
          ...(options.expires === undefined ? {} : { expiresAt: options.expires }),
        })) as ReferenceValueDescription;
        writeResult(globalOptions(command).output, stored, columns, [row(stored)]);
      },
    );

  refvalue
    .command('get')
    .argument('<id>')
    .description('print one reference value')
    .addHelpText('after', '\nExample:\n  sealpod refvalue get tpm_kernel')
    .action(async (id: string, _options: unknown, command: Command) => {
      const value = (await kbsClientFor(command).get(address(id))) as ReferenceValueDescription;
      writeResult(globalOptions(command).output, value, columns, [row(value)]);
    });

  refvalue
    .command('list')
    .description('list the reference values')
    .addHelpText('after', '\nExample:\n  sealpod refvalue list')
    .action(async (_options: unknown, command: Command) => {
      const { 'reference-values': values } = (await kbsClientFor(command).get('/admin/v1/reference-values')) as {
        readonly 'reference-values': readonly ReferenceValueDescription[];
      };
      writeResult(globalOptions(command).output, values, columns, values.map(row));
    });

  refvalue
    .command('delete')
    .argument('<id>')
    .description('delete a reference value; what needs it is refused from then on')
    .addHelpText('after', '\nExample:\n  sealpod refvalue delete tpm_initdata')
    .action(async (id: string, _options: unknown, command: Command) => {
      await kbsClientFor(command).delete(address(id));
      writeResult(globalOptions(command).output, { deleted: id }, ['deleted'], [[id]]);
    });
}
