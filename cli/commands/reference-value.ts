import type { KbsClient } from '@sealpod/kbs-client';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, readBytes, readText } from './context.ts';
import { addCandidateCommands, listCandidates } from './reference-value-candidates.ts';
import { addSignCommand } from './reference-value-sign.ts';

interface ReferenceValueDescription {
  readonly id: string;
  readonly value: unknown;
  readonly version: number;
  readonly expiresAt?: string;
  readonly updatedAt: string;
  readonly scope?: string;
  readonly provenance?: { readonly kind: string; readonly subject?: string; readonly signers?: readonly string[] };
}

/** The file that `sealpod podvm measure` writes. */
export interface ReferenceValuesFile {
  readonly version: 1;
  readonly image: string;
  readonly reference_values: Readonly<Record<string, unknown>>;
}

const columns = ['id', 'scope', 'value', 'version', 'expires', 'provenance'] as const;
const row = (value: ReferenceValueDescription): string[] => [
  value.id,
  value.scope ?? 'all',
  JSON.stringify(value.value),
  String(value.version),
  value.expiresAt ?? 'never',
  provenanceOf(value),
];

function provenanceOf({ provenance }: ReferenceValueDescription): string {
  if (provenance === undefined) return 'not told';
  const by = provenance.subject ?? provenance.signers?.join(', ');
  return by === undefined ? provenance.kind : `${provenance.kind} ${by}`;
}

function address(id: string, scope?: string): string {
  const query = scope === undefined ? '' : `?scope=${encodeURIComponent(scope)}`;
  return `/admin/v1/reference-values/${encodeURIComponent(id)}${query}`;
}

const scopeOption = ['--scope <policy>', 'for this attestation policy only, e.g. default; without it for all'] as const;

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
export async function registerReferenceValues(
  client: KbsClient,
  file: ReferenceValuesFile,
  scope?: string,
): Promise<void> {
  for (const [id, value] of Object.entries(file.reference_values)) await client.put(address(id, scope), { value });
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

/** `sealpod refvalue put|get|list|delete|register` and those that `addCandidateCommands` adds. */
export function addReferenceValueCommands(program: Command): void {
  const refvalue = program.command('refvalue').description('reference values: what measured components must be');

  refvalue
    .command('put')
    .description('register reference values: a whole file, or one id with its values')
    .argument('[id]')
    .argument('[values...]', 'allowed values')
    .option('--file <file>', 'reference-values.json of `sealpod podvm measure`')
    .option('--expires <time>', 'RFC 3339 time after which the value counts no more')
    .option(...scopeOption)
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod refvalue put --file reference-values.json\n  sealpod refvalue put tpm_initdata 3f…a1',
    )
    .action(
      async (
        id: string | undefined,
        values: readonly string[],
        options: { file?: string; expires?: string; scope?: string },
        command: Command,
      ) => {
        const client = kbsClientFor(command);
        if (options.file !== undefined && id === undefined) {
          const file = parseReferenceValuesFile(readText(options.file), options.file);
          await registerReferenceValues(client, file, options.scope);
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
        const stored = (await client.put(address(id, options.scope), {
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
    .option(...scopeOption)
    .addHelpText('after', '\nExample:\n  sealpod refvalue get tpm_kernel')
    .action(async (id: string, { scope }: { scope?: string }, command: Command) => {
      const value = (await kbsClientFor(command).get(address(id, scope))) as ReferenceValueDescription;
      writeResult(globalOptions(command).output, value, columns, [row(value)]);
    });

  refvalue
    .command('list')
    .description('list the reference values in use, or what was learned')
    .option('--candidates', 'learned values instead: quarantined, approved, promoted and retired')
    .option('--state <state>', 'of --candidates only those that are quarantined, approved, promoted or retired')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod refvalue list\n  sealpod refvalue list --candidates --state quarantined',
    )
    .action(async (options: { candidates?: boolean; state?: string }, command: Command) => {
      if (options.state !== undefined && options.candidates !== true)
        throw new SealpodError('USAGE', '--state goes with --candidates');
      if (options.candidates === true) return listCandidates(command, options.state);
      const { 'reference-values': values } = (await kbsClientFor(command).get('/admin/v1/reference-values')) as {
        readonly 'reference-values': readonly ReferenceValueDescription[];
      };
      writeResult(globalOptions(command).output, values, columns, values.map(row));
    });

  refvalue
    .command('delete')
    .argument('<id>')
    .description('delete a reference value; what needs it is refused from then on')
    .option(...scopeOption)
    .addHelpText('after', '\nExample:\n  sealpod refvalue delete tpm_initdata')
    .action(async (id: string, { scope }: { scope?: string }, command: Command) => {
      await kbsClientFor(command).delete(address(id, scope));
      writeResult(globalOptions(command).output, { deleted: id }, ['deleted'], [[id]]);
    });

  refvalue
    .command('register')
    .argument('<file>', 'DSSE envelope, signed CoRIM or message of an RVPS; - for standard input')
    .description('register signed reference values: all of the file or none')
    .addHelpText('after', '\nExample:\n  sealpod refvalue register release.dsse.json')
    .action(async (file: string, _options: unknown, command: Command) => {
      const message = messageOf(readBytes(file));
      await kbsClientFor(command).post('/kbs/v0/reference-value', JSON.stringify(message), 'application/json');
      writeResult(globalOptions(command).output, { registered: file, type: message.type }, ['registered'], [[file]]);
    });

  addSignCommand(refvalue);
  addCandidateCommands(refvalue);
}

/** Wraps what is signed into the message that carries it. What it is shows from its first bytes. */
function messageOf(bytes: Buffer): { readonly version: string; readonly type: string; readonly payload: string } {
  const wrapped = (type: string) => ({ version: '0.1.0', type, payload: bytes.toString('base64') });
  // CBOR arrays, maps and tags begin with a byte that no JSON text begins with.
  if ((bytes[0] ?? 0) >= 0x80) return wrapped('corim');
  let content: unknown;
  try {
    content = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new SealpodError('USAGE', 'the file is neither JSON nor CBOR', { cause });
  }
  const root = content as { payloadType?: unknown; version?: string; type?: unknown; payload?: unknown } | null;
  if (typeof root?.payloadType === 'string') return wrapped('dsse');
  if (typeof root?.type === 'string' && typeof root.payload === 'string')
    return { version: root.version ?? '0.1.0', type: root.type, payload: root.payload };
  throw new SealpodError('USAGE', 'the file holds no signed reference values', {
    expected: 'a DSSE envelope, a signed CoRIM, or {"version","type","payload"}',
  });
}
