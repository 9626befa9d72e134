import { SealpodError } from '@sealpod/protocol/errors';

/** CopyFileRequest, plain. `fileMode` has type bits; sizes in bytes. */
export interface FileCopy {
  readonly path: string;
  readonly fileSize: bigint;
  readonly fileMode: number;
  readonly dirMode: number;
  readonly uid: number;
  readonly gid: number;
  readonly offset: bigint;
  readonly data: Uint8Array;
}

/** What a sealed secret begins with (guest-components, sealed secrets). */
export const sealedPrefix = 'sealed.';

/** The data hub, as far as containers need it. */
export interface SecretUnsealer {
  /** Opens a sealed secret; rejects where it is not genuine or the key broker refuses. */
  unseal(secret: string): Promise<Uint8Array>;
}

/** Whether an environment variable (`name=value`) holds a sealed secret. */
export function isSealed(variable: string): boolean {
  const at = variable.indexOf('=') + 1;
  return at > 0 && variable.startsWith(sealedPrefix, at);
}

/**
 * Replaces sealed values of environment variables by what they seal. A value that cannot be opened fails the container:
 * upstream leaves the sealed text in place, which a program would take for its secret.
 */
export async function unsealEnvironment(
  environment: readonly string[],
  hub: SecretUnsealer | undefined,
): Promise<string[]> {
  return Promise.all(
    environment.map(async (variable) => {
      if (!isSealed(variable)) return variable;
      const at = variable.indexOf('=') + 1;
      const value = variable.slice(at);
      const name = variable.slice(0, at - 1);
      return `${name}=${Buffer.from(await open(value, `environment variable ${name}`, hub)).toString('utf8')}`;
    }),
  );
}

/**
 * A copied file with the content that it seals, where it is a sealed secret; otherwise as it is. Volumes of Secrets come
 * as copies, so their updates are opened too. Upstream opens them when the container is created, and leaves what it
 * cannot open; here the copy fails.
 *
 * A sealed secret is a line of text and smaller than one message: `copyFile` refuses one that came in pieces.
 */
export async function unsealFile(copy: FileCopy, hub: SecretUnsealer | undefined): Promise<FileCopy> {
  const isWhole = copy.offset === 0n && BigInt(copy.data.length) === copy.fileSize;
  if (!isWhole || !beginsSealed(copy.data)) return copy;
  const name = copy.path.slice(copy.path.lastIndexOf('/') + 1);
  const text = Buffer.from(copy.data).toString('latin1').trimEnd();
  const data = await open(text, `file ${name}`, hub);
  return { ...copy, data, fileSize: BigInt(data.length) };
}

/** Whether content is, or begins like, a sealed secret. */
export function beginsSealed(data: Uint8Array): boolean {
  return Buffer.from(data.subarray(0, sealedPrefix.length)).toString('latin1') === sealedPrefix;
}

async function open(secret: string, what: string, hub: SecretUnsealer | undefined): Promise<Uint8Array> {
  if (hub !== undefined) return hub.unseal(secret);
  throw new SealpodError('UNSUPPORTED', `${what} is a sealed secret, and there is no data hub to open it`);
}
