import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Why the software TPM cannot run on this machine, or undefined. For a test to skip with. */
export function missingSoftwareTpm(): string | undefined {
  const missing = ['swtpm', 'swtpm_setup', 'swtpm_localca'].filter((name) => !existsSync(`/usr/bin/${name}`));
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')} (Debian packages swtpm, swtpm-tools)`;
}

/** A manufactured software TPM: state, endorsement key, certificate, and the authority that signed it. */
export interface SoftwareTpm {
  readonly directory: string;
  /** Of the authority's root certificate, PEM. */
  readonly rootCertificate: string;
  /** Of the authority that signs EK certificates, PEM. */
  readonly issuerCertificate: string;
  /** Starts the TPM with fresh PCRs. Resolves to the path of its command socket. */
  start(): Promise<string>;
  stop(): Promise<void>;
  /** Stops it and removes everything. */
  remove(): Promise<void>;
}

/** Manufactures a software TPM with its own authority in a new directory: nothing of another test or of the machine is used. */
export async function createSoftwareTpm(): Promise<SoftwareTpm> {
  const directory = mkdtempSync(join(tmpdir(), 'sealpod-swtpm-'));
  const authority = join(directory, 'ca');
  const state = join(directory, 'state');
  mkdirSync(authority);
  mkdirSync(state);
  writeFileSync(
    join(directory, 'localca.conf'),
    [
      `statedir = ${authority}`,
      `signingkey = ${authority}/signkey.pem`,
      `issuercert = ${authority}/issuercert.pem`,
      `certserial = ${authority}/certserial`,
      '',
    ].join('\n'),
  );
  writeFileSync(
    join(directory, 'localca.options'),
    '--platform-manufacturer Example\n--platform-version 1.0\n--platform-model PodVM\n',
  );
  writeFileSync(
    join(directory, 'setup.conf'),
    [
      'create_certs_tool = /usr/bin/swtpm_localca',
      `create_certs_tool_config = ${directory}/localca.conf`,
      `create_certs_tool_options = ${directory}/localca.options`,
      'active_pcr_banks = sha256',
      '',
    ].join('\n'),
  );
  await run('swtpm_setup', [
    '--tpm2',
    '--tpmstate',
    `dir://${state}`,
    '--config',
    join(directory, 'setup.conf'),
    '--create-ek-cert',
    '--pcr-banks',
    'sha256',
    '--lock-nvram',
    '--overwrite',
    '--vmid',
    'test',
  ]);

  let running: { stop: () => Promise<void> } | undefined;
  const stop = async (): Promise<void> => {
    await running?.stop();
    running = undefined;
  };
  return {
    directory,
    rootCertificate: readFileSync(join(authority, 'swtpm-localca-rootca-cert.pem'), 'utf8'),
    issuerCertificate: readFileSync(join(authority, 'issuercert.pem'), 'utf8'),
    start: async () => {
      await stop();
      const socket = join(directory, 'tpm.sock');
      running = await startSoftwareTpm(state, socket, join(directory, 'tpm.ctrl'));
      return socket;
    },
    stop,
    remove: async () => {
      await stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function startSoftwareTpm(
  state: string,
  socket: string,
  control: string,
): Promise<{ stop: () => Promise<void> }> {
  rmSync(socket, { force: true });
  const child = spawn(
    'swtpm',
    [
      'socket',
      '--tpm2',
      '--tpmstate',
      `dir=${state},mode=0600`,
      '--server',
      `type=unixio,path=${socket}`,
      '--ctrl',
      `type=unixio,path=${control}`,
      '--flags',
      'not-need-init,startup-clear',
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  for (let attempt = 0; !(await accepts(socket)); attempt++) {
    if (attempt > 1000 || child.exitCode !== null) throw new Error('swtpm did not open its socket');
    await delay(5);
  }
  return {
    stop: async () => {
      child.kill('SIGTERM');
      await exited;
    },
  };
}

/** Whether the socket is listened on; its file alone is there a little earlier. */
function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

async function run(program: string, parameters: readonly string[]): Promise<void> {
  const child = spawn(program, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${program} failed with ${code}: ${output}`);
}
