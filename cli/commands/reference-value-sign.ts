import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import type { Command } from 'commander';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, readBytes, readPrivateKey } from './context.ts';

interface SignOptions {
  readonly key: readonly string[];
  readonly out?: string;
  readonly expires?: string;
  readonly scope?: string;
  readonly subject?: string;
}

/** `NAME@sha256:HEX`. @throws SealpodError USAGE */
function parseSubject(text: string): { readonly name: string; readonly sha256: string } {
  const [, name, sha256] = /^(.+)@sha256:([0-9a-f]{64})$/i.exec(text) ?? [];
  if (name !== undefined && sha256 !== undefined) return { name, sha256: sha256.toLowerCase() };
  throw new SealpodError('USAGE', 'the subject names no digest', { expected: 'NAME@sha256:HEX', actual: text });
}

async function signed(file: string, options: SignOptions) {
  const { addSignatures, readSignableFile, referenceValueStatement, signStatement } = await import(
    '@sealpod/attestation-service/offline'
  );
  const { expires, scope, subject } = options;
  const keys = options.key.map((name) => ({ name, privateKey: readPrivateKey(name) }));
  const bytes = readBytes(file);
  const content = readSignableFile(bytes, file);
  const now = new Date();
  if (content.kind === 'values') {
    const statement = referenceValueStatement(content.values, {
      subject:
        subject === undefined
          ? { name: basename(file), sha256: createHash('sha256').update(bytes).digest('hex') }
          : parseSubject(subject),
      issuedAt: now,
      ...(expires === undefined ? {} : { expiresAt: expires }),
      ...(scope === undefined ? {} : { scope }),
    });
    return signStatement(statement, keys, now);
  }
  if (expires !== undefined || scope !== undefined || subject !== undefined) {
    throw new SealpodError('USAGE', `${file} says already what --expires, --scope and --subject would`, {
      expected: 'reference values',
      actual: content.kind === 'statement' ? 'an in-toto statement' : 'a DSSE envelope',
    });
  }
  return content.kind === 'statement'
    ? signStatement(content.statement, keys, now)
    : addSignatures(content.envelope, keys, now);
}

/** All that the envelope says, values to their last character: nobody should sign anything unseen. */
async function describeSigned(envelope: JsonObject): Promise<string> {
  const { statementIn } = await import('@sealpod/attestation-service/offline');
  const { subjects, values, issuedAt, expiresAt, scope } = statementIn(envelope);
  const lines = [
    `of: ${subjects.join(', ')}`,
    `issued: ${issuedAt.toISOString()}`,
    `expires: ${expiresAt?.toISOString() ?? 'twelve months after'}`,
    `for: ${scope === undefined ? 'every policy' : `policy ${scope}`}`,
    ...Object.entries(values).map(([id, value]) => `${id} = ${JSON.stringify(value)}`),
  ];
  // It is from a file of somebody else's: nothing in it may steer the terminal, or turn the direction of what follows.
  return `signed:\n${lines.map((line) => `  ${line.replace(/[\p{Cc}\p{Cf}]/gu, '?')}\n`).join('')}`;
}

/** `sealpod refvalue sign`. */
export function addSignCommand(refvalue: Command): void {
  refvalue
    .command('sign')
    .argument(
      '<file>',
      'reference-values.json of `sealpod podvm measure`, {"id": value, …}, an in-toto statement, or a DSSE envelope that gets one more signature',
    )
    .description(
      'sign reference values, on this machine: a DSSE envelope around an in-toto statement, as `register` takes it',
    )
    .requiredOption(
      '--key <file>',
      'PEM private key (Ed25519, P-256 or P-384); several times for several signatures',
      (file: string, before: readonly string[] | undefined) => [...(before ?? []), file],
    )
    .option('--out <file>', 'where the envelope goes (default: standard output)')
    .option('--expires <time>', 'RFC 3339 time after which the values count no more; twelve months at most')
    .option('--scope <policy>', 'for this attestation policy only, e.g. default')
    .option('--subject <name@sha256:hex>', 'what was measured (default: the file itself)')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod refvalue sign reference-values.json --key release.pem --out release.dsse.json\n  sealpod refvalue sign release.dsse.json --key second.pem --out release.dsse.json',
    )
    .action(async (file: string, options: SignOptions, command: Command) => {
      const { output } = globalOptions(command);
      const envelope = await signed(file, options);
      process.stderr.write(await describeSigned(envelope));
      const text = `${JSON.stringify(envelope, null, 2)}\n`;
      if (options.out === undefined) {
        process.stdout.write(text);
        return;
      }
      try {
        writeFileSync(options.out, text);
      } catch (cause) {
        throw new SealpodError('USAGE', `cannot write ${options.out}`, { cause });
      }
      const signatures = (envelope['signatures'] as readonly { readonly keyid?: unknown }[]).map(({ keyid }) =>
        String(keyid ?? ''),
      );
      writeResult(
        output,
        { signed: options.out, signatures },
        ['signed', 'keys'],
        [[options.out, signatures.join(', ')]],
      );
    });
}
