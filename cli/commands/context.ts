import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { KbsClient } from '@sealpod/kbs-client';
import { signAdminToken } from '@sealpod/kbs-client/token';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Command, Option } from 'commander';
import { ownerKeyFile } from '../development/kbs.ts';
import { type Layout, layoutOf } from '../development/layout.ts';
import { requireState } from '../development/state.ts';
import type { OutputFormat } from '../terminal/output.ts';

/** Options that every command understands. */
export interface GlobalOptions {
  readonly home?: string;
  readonly output: OutputFormat;
  readonly kbsUrl?: string;
  readonly kbsCertificate?: string;
  readonly adminKey?: string;
}

/** The global options as given anywhere on the command line. */
export function globalOptions(command: Command): GlobalOptions {
  const options = command.optsWithGlobals<Omit<GlobalOptions, 'output'> & { output: string }>();
  if (options.output !== 'table' && options.output !== 'json') {
    throw new SealpodError('USAGE', 'unknown output format', { expected: 'table or json', actual: options.output });
  }
  return { ...options, output: options.output };
}

/** Of the commands that start an environment. */
export function templateOption(): Option {
  const meaning = "clone pods' machines from one that is booted once: faster, and their evidence says so";
  return new Option('--template', meaning).default(false);
}

/** The layout of the environment the command is about. */
export function layoutFor(command: Command): Layout {
  return layoutOf(globalOptions(command).home);
}

/**
 * A client of the key broker that the options name, else of the running development environment.
 *
 * The administrator's key is read from a file and signs a token of one minute for each request: no secret stands on a
 * command line, in the environment, or in a file besides the key.
 */
export function kbsClientFor(command: Command): KbsClient {
  const options = globalOptions(command);
  const layout = layoutFor(command);
  const keyFile = options.adminKey ?? ownerKeyFile(layout);
  const state = options.kbsUrl === undefined ? requireState(layout) : undefined;
  const url = options.kbsUrl ?? state?.kbsUrl;
  if (options.kbsUrl !== undefined && !URL.canParse(options.kbsUrl)) {
    throw new SealpodError('USAGE', 'what --kbs-url names is no URL', {
      expected: 'https://host:port',
      actual: options.kbsUrl,
    });
  }
  if (url === undefined)
    throw new SealpodError('NOT_FOUND', 'the environment has no key broker', { fix: 'name one with --kbs-url' });
  const certificateFile = options.kbsCertificate ?? state?.kbsCertificateFile;
  return new KbsClient({
    url,
    ...(certificateFile === undefined ? {} : { certificatePem: readText(certificateFile) }),
    token: () =>
      signAdminToken({
        privateKey: readPrivateKey(keyFile),
        role: 'owner',
        subject: 'cli',
        ttlSeconds: 60,
      }),
  });
}

/** Reads a private key. @throws SealpodError USAGE where the file holds none. */
export function readPrivateKey(file: string): KeyObject {
  const text = readText(file);
  try {
    return createPrivateKey(text);
  } catch (cause) {
    throw new SealpodError('USAGE', `${file} holds no private key`, { cause, expected: 'Ed25519 or P-256 as PEM' });
  }
}

/** Reads a text file. @throws SealpodError USAGE where it cannot be read. */
export function readText(file: string): string {
  return readBytes(file).toString('utf8');
}

/** Reads a file, or standard input where it is `-`. @throws SealpodError USAGE where it cannot be read. */
export function readBytes(file: string): Buffer {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (cause) {
    throw new SealpodError('USAGE', `cannot read ${file}`, {
      cause,
      expected: 'a readable file, or - for standard input',
    });
  }
}
