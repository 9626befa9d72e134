/** One entry of an archive. Paths have no leading slash; parents that are not named are added. */
export type CpioEntry =
  | { readonly path: string; readonly kind: 'directory' }
  | { readonly path: string; readonly kind: 'file'; readonly content: Uint8Array; readonly mode: number }
  | { readonly path: string; readonly kind: 'link'; readonly target: string }
  | { readonly path: string; readonly kind: 'character device'; readonly major: number; readonly minor: number };

const typeCharacterDevice = 0o020000;
const typeDirectory = 0o040000;
const typeFile = 0o100000;
const typeLink = 0o120000;

/**
 * Writes a "newc" archive (kernel documentation, "initramfs buffer format"): owner root, time 0, entries sorted by
 * path, inode numbers counted up, so that equal entries give equal bytes.
 */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const all = new Map<string, CpioEntry>();
  for (const entry of entries) {
    for (let at = entry.path.indexOf('/'); at > 0; at = entry.path.indexOf('/', at + 1)) {
      const path = entry.path.slice(0, at);
      if (!all.has(path)) all.set(path, { path, kind: 'directory' });
    }
    all.set(entry.path, entry);
  }
  // By code unit, not by locale: a parent sorts before what is below it.
  const sorted = [...all.values()].sort((left, right) => (left.path < right.path ? -1 : 1));
  const parts = sorted.flatMap((entry, index) => member(index + 1, entry));
  return Buffer.concat([...parts, ...record(0, 'TRAILER!!!', 0, 1, 0, 0, new Uint8Array())]);
}

function member(inode: number, entry: CpioEntry): Buffer[] {
  const nothing = new Uint8Array();
  switch (entry.kind) {
    case 'directory':
      return record(inode, entry.path, typeDirectory | 0o755, 2, 0, 0, nothing);
    case 'file':
      return record(inode, entry.path, typeFile | entry.mode, 1, 0, 0, entry.content);
    case 'link':
      return record(inode, entry.path, typeLink | 0o777, 1, 0, 0, Buffer.from(entry.target));
    case 'character device':
      return record(inode, entry.path, typeCharacterDevice | 0o600, 1, entry.major, entry.minor, nothing);
  }
}

function record(
  inode: number,
  path: string,
  mode: number,
  links: number,
  deviceMajor: number,
  deviceMinor: number,
  content: Uint8Array,
): Buffer[] {
  const name = Buffer.from(`${path}\0`);
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, deviceMajor, deviceMinor, name.length, 0];
  const head = Buffer.from(
    `070701${fields.map((value) => value.toString(16).toUpperCase().padStart(8, '0')).join('')}`,
  );
  return [head, name, padding(head.length + name.length), Buffer.from(content), padding(content.length)];
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
