import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type Daemon, startDaemon } from '@sealpod/processes';
import type { Layout } from './layout.ts';

// Unlike import.meta.resolve it is there where tests set up what all of them share.
const { resolve } = createRequire(import.meta.url);

/** The root of the software TPMs that the key broker is to know, as files of PEM certificates. */
export interface SimulatedRoot {
  readonly name: string;
  readonly certificateFiles: readonly string[];
}

/** A running key broker. */
export interface RunningKbs {
  readonly daemon: Daemon;
  readonly url: string;
  readonly certificateFile: string;
}

/** The owner key of a development environment: Ed25519, PKCS#8 PEM, 0600. */
export function ownerKeyFile(layout: Layout): string {
  return join(layout.home, 'owner-key.pem');
}

/** Makes the owner's key pair where there is none. The key broker is told the public key and trusts nobody else. */
function ensureOwnerKey(layout: Layout): string {
  const publicFile = join(layout.home, 'owner-key.pub.pem');
  if (existsSync(ownerKeyFile(layout)) && existsSync(publicFile)) return publicFile;
  const pair = generateKeyPairSync('ed25519');
  writeFileSync(ownerKeyFile(layout), pair.privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 });
  writeFileSync(publicFile, pair.publicKey.export({ format: 'pem', type: 'spki' }), { mode: 0o600 });
  return publicFile;
}

/** Starts the key broker with the attestation service in its process, by TLS, on the bridge only. */
export async function startKbs(
  layout: Layout,
  address: string,
  port: number,
  root: SimulatedRoot,
): Promise<RunningKbs> {
  const dataDirectory = join(layout.home, 'kbs');
  mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
  const configuration = {
    listen: { host: address, port },
    dataDirectory,
    tlsHosts: [address],
    admin: { keys: [{ publicKeyFile: ensureOwnerKey(layout) }] },
    attestationService: {
      type: 'builtin',
      tpm: {
        requireTrustedKey: true,
        roots: [
          {
            name: root.name,
            simulated: true,
            certificates: root.certificateFiles.map((file) => readFileSync(file, 'utf8')).join('\n'),
          },
        ],
      },
    },
  };
  const file = join(layout.home, 'kbs.json');
  writeFileSync(file, `${JSON.stringify(configuration, null, 2)}\n`, { mode: 0o600 });
  const announcement = () => listeningLine(join(layout.logs, 'kbs.log'));
  const daemon = await startDaemon({
    name: 'kbs',
    command: process.execPath,
    args: [resolve('@sealpod/kbs/main'), '--config', file],
    logDirectory: layout.logs,
    ready: () => announcement() !== undefined,
  });
  const line = announcement();
  return { daemon, url: line?.listening ?? `https://${address}:${port}`, certificateFile: line?.certificate ?? '' };
}

/** The one line that the key broker prints to standard output once it listens. */
function listeningLine(logFile: string): { readonly listening: string; readonly certificate: string } | undefined {
  for (const line of readFileSync(logFile, 'utf8').split('\n')) {
    if (line.startsWith('{"listening"')) return JSON.parse(line) as { listening: string; certificate: string };
  }
  return undefined;
}
