import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { signAdminToken } from '@sealpod/kbs-client/token';

/** A key broker in a process of its own. */
export interface KbsProcess {
  readonly address: string;
  readonly certificatePath: string | undefined;
  readonly child: ChildProcess;
  /** Everything on stderr so far. */
  readonly log: () => string;
  /** Ends it and gives its exit code, or the signal's name. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<number | string>;
}

/** A directory with a configuration and an owner's key. */
export interface KbsHome {
  readonly directory: string;
  readonly configFile: string;
  readonly token: () => Promise<string>;
  /** Starts one, with some members of the configuration replaced. */
  readonly start: (changes?: object) => Promise<KbsProcess>;
  /** Runs it where it is expected to end by itself. */
  readonly run: (
    ...options: string[]
  ) => Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>;
  readonly remove: () => Promise<void>;
}

const program = join(import.meta.dirname, '..', 'main.ts');

/** Prepares a home; processes that are started from it and still run are killed with it. */
export function createKbsHome(changes: object = {}): KbsHome {
  const directory = mkdtempSync(join(tmpdir(), 'sealpod-kbs-'));
  const keys = generateKeyPairSync('ed25519');
  writeFileSync(join(directory, 'owner.pem'), keys.publicKey.export({ type: 'spki', format: 'pem' }));
  const configFile = join(directory, 'kbs.json');
  const rate = { perSecond: 100_000, burst: 100_000 };
  const config = {
    listen: { host: '127.0.0.1', port: 0 },
    dataDirectory: 'data',
    admin: { keys: [{ publicKeyFile: 'owner.pem' }] },
    attestationService: { type: 'builtin', sample: true },
    limits: { perAddress: rate, global: rate },
    ...changes,
  };
  writeFileSync(configFile, JSON.stringify(config));
  const running = new Set<KbsProcess>();
  const start = async (others: object = {}) => {
    writeFileSync(configFile, JSON.stringify({ ...config, ...others }));
    const started = await startProcess(configFile);
    running.add(started);
    return started;
  };
  return {
    directory,
    configFile,
    token: () => signAdminToken({ privateKey: keys.privateKey, role: 'owner', subject: 'test', ttlSeconds: 600 }),
    start,
    run: (...options) => runToEnd(options.length > 0 ? options : ['--config', configFile]),
    remove: async () => {
      await Promise.all([...running].map((process) => process.stop('SIGKILL')));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function startProcess(configFile: string): Promise<KbsProcess> {
  const child = spawn(process.execPath, [program, '--config', configFile], { stdio: ['ignore', 'pipe', 'pipe'] });
  const errors: string[] = [];
  child.stderr.on('data', (chunk) => errors.push(String(chunk)));
  const ended = new Promise<number | string>((resolve) =>
    child.once('close', (code, signal) => resolve(code ?? String(signal))),
  );
  const line = await Promise.race([
    new Promise<string>((resolve) => createInterface({ input: child.stdout }).once('line', resolve)),
    ended.then((code) => {
      throw new Error(`the key broker ended with ${code}: ${errors.join('')}`);
    }),
  ]);
  const { listening, certificate } = JSON.parse(line) as { listening: string; certificate?: string };
  return {
    address: listening,
    certificatePath: certificate,
    child,
    log: () => errors.join(''),
    stop: (signal = 'SIGTERM') => {
      child.kill(signal);
      return ended;
    },
  };
}

function runToEnd(options: readonly string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [program, ...options], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000 });
  const [stdout, stderr]: [string[], string[]] = [[], []];
  child.stdout.on('data', (chunk) => stdout.push(String(chunk)));
  child.stderr.on('data', (chunk) => stderr.push(String(chunk)));
  return new Promise((resolve) => {
    child.once('close', (code) => resolve({ code, stdout: stdout.join(''), stderr: stderr.join('') }));
  });
}
