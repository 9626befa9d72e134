import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { run } from './run.ts';

/** Who will run the software TPM. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Paths of the local certificate authority's certificates, PEM. Enrol both as the simulated root. */
export interface TpmAuthorityCertificates {
  readonly root: string;
  readonly issuer: string;
}

/**
 * A certificate authority for software TPMs on this machine. Its private keys stay in its folder, readable by the
 * owner of this process only, never by the user that runs virtual machines. What it certifies is a simulation.
 */
export interface TpmAuthority {
  readonly directory: string;
  certificates(): TpmAuthorityCertificates;
  /**
   * Creates the state of a new TPM, with an endorsement key and certificate of its own, in `stateDirectory` (which
   * must not exist), for `owner` alone. Takes one made in advance where there is one. Returns the certificate, DER.
   *
   * @throws SealpodError `PREREQUISITE` or `PROVIDER_IMAGE` where swtpm_setup is missing or fails.
   */
  createTpm(stateDirectory: string, owner: Owner): Promise<Buffer>;
  /** Makes one TPM in advance, so that the next `createTpm` need not wait for key generation. */
  prepare(): Promise<void>;
}

const rootName = 'swtpm-localca-rootca-cert.pem';
const issuerName = 'issuercert.pem';
/** Written by swtpm_setup beside the state. */
const endorsementCertificateName = 'ek-rsa2048.crt';
const platform = ['--platform-manufacturer sealpod', '--platform-version 1.0', '--platform-model pod-vm'];

/**
 * Opens the certificate authority in `directory`, creating it at first use. swtpm and its tools are looked for in
 * `programsDirectory` first, where it is given.
 *
 * @throws SealpodError `PREREQUISITE` where swtpm's tools are not installed.
 */
export async function createTpmAuthority(directory: string, programsDirectory?: string): Promise<TpmAuthority> {
  const base = resolve(directory);
  const authority = join(base, 'authority');
  const pool = join(base, 'prepared');
  await mkdir(authority, { recursive: true, mode: 0o700 });
  await mkdir(pool, { recursive: true, mode: 0o700 });
  for (const path of [base, authority, pool]) await chmod(path, 0o700);
  const configuration = await writeConfiguration(base, authority, programsDirectory ?? '/usr/bin');
  // What an interrupted preparation left is not complete.
  for (const name of await readdir(pool)) {
    // An earlier release kept no certificate beside the state.
    const complete = name.startsWith('ready-') && (await exists(join(pool, name, endorsementCertificateName)));
    if (!complete) await rm(join(pool, name), { recursive: true, force: true });
  }

  const manufacture = async (stateDirectory: string): Promise<void> => {
    const arguments_ = ['--tpm2', '--tpmstate', `dir://${stateDirectory}`, '--config', configuration];
    const options = ['--create-ek-cert', '--pcr-banks', 'sha256', '--overwrite', '--vmid', 'sealpod'];
    const written = ['--write-ek-cert-files', stateDirectory];
    const path = programsDirectory === undefined ? {} : { programsDirectory };
    await run('swtpm_setup', [...arguments_, ...options, ...written], { timeoutMs: 60_000, ...path });
  };
  const make = async (): Promise<string> => {
    const fresh = await mkdtemp(join(pool, 'new-'));
    try {
      await manufacture(fresh);
      const ready = join(pool, `ready-${fresh.slice(-6)}`);
      await rename(fresh, ready);
      return ready;
    } catch (error) {
      await rm(fresh, { recursive: true, force: true });
      throw error;
    }
  };
  // The authority's keys exist only once it has certified something.
  if (!(await exists(join(authority, issuerName)))) await make();
  for (const name of await readdir(authority)) await chmod(join(authority, name), 0o600);

  return {
    directory: base,
    certificates: () => ({
      root: join(authority, rootName),
      issuer: join(authority, issuerName),
    }),
    createTpm: async (stateDirectory, owner) => {
      await mkdir(dirname(stateDirectory), { recursive: true });
      if (!(await takePrepared(pool, stateDirectory))) {
        await rename(await make(), stateDirectory).catch(async (error: NodeJS.ErrnoException) => {
          if (error.code !== 'EXDEV') throw error;
          await mkdir(stateDirectory, { mode: 0o700 });
          await manufacture(stateDirectory);
        });
      }
      // Read before it is the owner's, who could put another in its place.
      const certificate = await readFile(join(stateDirectory, endorsementCertificateName));
      await handOver(stateDirectory, owner);
      return certificate;
    },
    prepare: async () => {
      if (!(await readdir(pool)).some((name) => name.startsWith('ready-'))) await make();
    },
  };
}

async function writeConfiguration(base: string, authority: string, programs: string): Promise<string> {
  const localAuthority = join(base, 'swtpm-localca.conf');
  const options = join(base, 'swtpm-localca.options');
  const setup = join(base, 'swtpm-setup.conf');
  const files = {
    [localAuthority]: [
      `statedir = ${authority}`,
      `signingkey = ${join(authority, 'signkey.pem')}`,
      `issuercert = ${join(authority, issuerName)}`,
      `certserial = ${join(authority, 'certserial')}`,
    ],
    [options]: platform,
    [setup]: [
      `create_certs_tool = ${join(programs, 'swtpm_localca')}`,
      `create_certs_tool_config = ${localAuthority}`,
      `create_certs_tool_options = ${options}`,
      'active_pcr_banks = sha256',
    ],
  };
  for (const [file, lines] of Object.entries(files)) await writeFile(file, `${lines.join('\n')}\n`, { mode: 0o600 });
  return setup;
}

/** Renaming is the claim: two callers cannot take the same one. */
async function takePrepared(pool: string, target: string): Promise<boolean> {
  for (const name of await readdir(pool)) {
    if (!name.startsWith('ready-')) continue;
    // Of a release that kept no certificate beside the state.
    if (!(await exists(join(pool, name, endorsementCertificateName)))) continue;
    try {
      await rename(join(pool, name), target);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EXDEV') return false;
      if (code !== 'ENOENT')
        throw new SealpodError('STORAGE', `the TPM state cannot be moved to ${target}`, { cause: error });
    }
  }
  return false;
}

async function handOver(directory: string, owner: Owner): Promise<void> {
  for (const name of await readdir(directory)) {
    const file = join(directory, name);
    await chmod(file, 0o600);
    if ((await stat(file)).uid !== owner.uid) await chown(file, owner.uid, owner.gid);
  }
  await chmod(directory, 0o700);
  if ((await stat(directory)).uid !== owner.uid) await chown(directory, owner.uid, owner.gid);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
