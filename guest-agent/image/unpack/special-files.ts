import { spawnSync } from 'node:child_process';
import { lchownSync, lutimesSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { TarEntry } from '../tar/header.ts';
import { printable, systemPath } from './paths.ts';

/** Programs for what Node has no call for. Each may be missing; what needs it is then left out, with a notice. */
export interface SpecialFileTools {
  /** `mknod` of coreutils or busybox. */
  readonly mknod?: string;
  /** `setfattr` of the attr package. */
  readonly setfattr?: string;
}

/** Attributes that are part of an image; others belong to the host's security modules or to overlayfs. */
const wantedXattr = /^(?:user\.[\x21-\x7e]+|security\.capability)$/;
const maxXattrBytes = 64 * 1024;
const maxDevices = 1024;

/**
 * Devices, FIFOs and extended attributes of one layer. A container's devices come from its runtime and not from its
 * image, and a lost file capability takes a right away and gives none: so a guest without the tools may leave all of
 * them out.
 */
export class SpecialFiles {
  readonly #tools: SpecialFileTools;
  readonly #notice: (text: string) => void;
  readonly #xattrs = new Map<string, ReadonlyMap<string, Buffer>>();
  #devices = 0;

  constructor(tools: SpecialFileTools, notice: (text: string) => void) {
    this.#tools = tools;
    this.#notice = notice;
  }

  /** Creates a device or FIFO. A device 0:0 is overlayfs's whiteout and is never created. */
  create(entry: TarEntry, path: string): void {
    const type = { 'character-device': 'c', 'block-device': 'b', fifo: 'p' }[entry.type as string];
    const isWhiteout = type === 'c' && entry.deviceMajor === 0 && entry.deviceMinor === 0;
    this.#devices += 1;
    if (this.#devices > maxDevices) throw new SealpodError('IMG_UNPACK', `layer has more than ${maxDevices} devices`);
    if (type === undefined || isWhiteout || this.#tools.mknod === undefined) {
      this.#notice(`${entry.type} ${printable(entry.path)} is left out`);
      return;
    }
    const numbers = type === 'p' ? [] : [`${entry.deviceMajor}`, `${entry.deviceMinor}`];
    // Arguments are bytes: a path that is no UTF-8 cannot be given to a program from here.
    const name = systemPath(path);
    if (typeof name !== 'string') {
      this.#notice(`${entry.type} ${printable(entry.path)} is left out: its name is not ASCII`);
      return;
    }
    run(this.#tools.mknod, ['-m', (entry.mode & 0o7777).toString(8), name, type, ...numbers]);
    lchownSync(name, entry.uid, entry.gid);
    lutimesSync(name, entry.modified, entry.modified);
  }

  /** Keeps the attributes of a file until the end of its layer. */
  rememberXattrs(relative: string, xattrs: ReadonlyMap<string, Buffer>): void {
    const wanted = new Map(
      [...xattrs].filter(([name, value]) => wantedXattr.test(name) && value.length <= maxXattrBytes),
    );
    if (wanted.size < xattrs.size) {
      const others = [...xattrs.keys()].filter((name) => !wanted.has(name)).map(printable);
      this.#notice(`extended attributes ${others.join(', ')} of ${printable(relative)} are left out`);
    }
    if (wanted.size > 0) this.#xattrs.set(relative, wanted);
  }

  forget(relative: string): void {
    this.#xattrs.delete(relative);
  }

  forgetBelow(relative: string): void {
    for (const path of [...this.#xattrs.keys()]) if (path.startsWith(`${relative}/`)) this.#xattrs.delete(path);
  }

  /** Sets all remembered attributes with one run of `setfattr --restore`. */
  applyXattrs(root: string): void {
    if (this.#xattrs.size === 0) return;
    if (this.#tools.setfattr === undefined) {
      this.#notice(`extended attributes of ${this.#xattrs.size} files are left out: this guest has no setfattr`);
      return;
    }
    const dump = [...this.#xattrs].map(([relative, xattrs]) => {
      const lines = [...xattrs].map(([name, value]) => `${name}=0s${value.toString('base64')}\n`);
      return `# file: ${escapeDumpPath(relative)}\n${lines.join('')}\n`;
    });
    const directory = Buffer.from(root, 'latin1').toString('utf8');
    run(this.#tools.setfattr, ['-h', '--restore=-'], { input: Buffer.from(dump.join(''), 'latin1'), cwd: directory });
  }
}

/** Octal escapes of getfattr's dump format for what would end the line or the escape. */
function escapeDumpPath(path: string): string {
  return path.replace(/[\n\r\\=]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

function run(program: string, args: readonly string[], options: { input?: Buffer; cwd?: string } = {}): void {
  const result = spawnSync(program, args, { ...options, timeout: 60_000, stdio: ['pipe', 'ignore', 'pipe'] });
  if (result.status !== 0) {
    const reason = result.error?.message ?? result.stderr.toString('utf8').slice(0, 256).trim();
    throw new SealpodError('IMG_UNPACK', `${program} fails: ${reason}`, { cause: result.error });
  }
}
