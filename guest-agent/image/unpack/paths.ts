import { SealpodError } from '@sealpod/protocol/errors';

/** Paths are binary strings (one character a byte) until they are given to the operating system. */

const maxPathBytes = 4096;
const maxNameBytes = 255;

/**
 * Splits an entry's path into names. `.` and empty components go; a leading `/` means the root of the image, since an
 * archive has no other. `..` is refused, although it could be resolved inside the root: no image tool writes it.
 *
 * @throws SealpodError IMG_UNPACK
 */
export function entryComponents(path: string): string[] {
  if (path.length > maxPathBytes) throw refused(path, 'is too long');
  if (path.includes('\0')) throw refused(path, 'holds NUL');
  const names = path.split('/').filter((name) => name !== '' && name !== '.');
  if (names.includes('..')) throw refused(path, 'leaves the root');
  if (names.some((name) => name.length > maxNameBytes)) throw refused(path, 'has a name that is too long');
  return names;
}

/** The path for a system call: text where it is ASCII, which is faster, else its bytes. */
export function systemPath(path: string): string | Buffer {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: every ASCII character is meant
  return /^[\x00-\x7f]*$/.test(path) ? path : Buffer.from(path, 'latin1');
}

/** A path of this program as a binary string. */
export function toBinary(path: string): string {
  return Buffer.from(path).toString('latin1');
}

/** A path for a message. */
export function printable(path: string): string {
  return JSON.stringify(Buffer.from(path.slice(0, 256), 'latin1').toString('utf8'));
}

export function refused(path: string, problem: string): SealpodError {
  return new SealpodError('IMG_UNPACK', `layer entry ${printable(path)} ${problem}`);
}
