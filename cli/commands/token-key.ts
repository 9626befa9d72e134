import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor } from './context.ts';

interface TokenKey {
  readonly kid: string;
  readonly state: string;
  readonly signsFrom?: string;
  readonly publishedUntil?: string;
}

const root = '/admin/v1/token-keys';
const columns = ['kid', 'state', 'signs from', 'published until'] as const;
const row = ({ kid, state, signsFrom, publishedUntil }: TokenKey): string[] => [
  kid,
  state,
  signsFrom ?? 'not known',
  publishedUntil ?? 'not limited',
];

/** `sealpod token-key list|rotate`. */
export function addTokenKeyCommands(program: Command): void {
  const tokenKey = program
    .command('token-key')
    .description('keys of the attestation service that sign attestation tokens');

  tokenKey
    .command('list')
    .description('list the published keys: the next one, the one that signs, those whose tokens still live')
    .addHelpText('after', '\nExample:\n  sealpod token-key list')
    .action(async (_options: unknown, command: Command) => {
      const { 'token-keys': keys } = (await kbsClientFor(command).get(root)) as {
        readonly 'token-keys': readonly TokenKey[];
      };
      writeResult(globalOptions(command).output, keys, columns, keys.map(row));
    });

  tokenKey
    .command('rotate')
    .description(
      'publish a new key, which signs five minutes later; the old one stays until its last token has expired',
    )
    .addHelpText('after', '\nExample:\n  sealpod token-key rotate')
    .action(async (_options: unknown, command: Command) => {
      const result = (await kbsClientFor(command).post(`${root}/rotate`, {})) as {
        readonly rotated: boolean;
        readonly 'token-keys': readonly TokenKey[];
      };
      const { rotated, 'token-keys': keys } = result;
      writeResult(globalOptions(command).output, { rotated, keys }, columns, keys.map(row));
      if (!rotated) process.stderr.write('no key was added: the last one does not sign yet\n');
    });
}
