import { malformed, parseDecimal, type SparseRegion } from './header.ts';

/** Records of a PAX extended header that mean something here. Texts are binary strings. */
export interface PaxRecords {
  path?: string;
  linkTarget?: string;
  size?: number;
  uid?: number;
  gid?: number;
  modified?: number;
  readonly xattrs: Map<string, Buffer>;
  /** GNU sparse formats 0.0 and 0.1: the regions are in the records. */
  sparseRegions?: SparseRegion[];
  /** GNU sparse format 1.0: the regions are at the start of the data. */
  sparseMapInData?: boolean;
  /** Real name and size of a sparse file, which override `path` and `size`. */
  sparsePath?: string;
  sparseSize?: number;
}

const xattrPrefix = 'SCHILY.xattr.';

/**
 * Parses the records `<length> <keyword>=<value>\n` of a PAX extended header (POSIX.1-2017 pax). Keywords that mean
 * nothing for a file system are ignored.
 *
 * @throws SealpodError IMG_FORMAT
 */
export function parsePax(bytes: Buffer): PaxRecords {
  const records: PaxRecords = { xattrs: new Map() };
  const sparseNumbers: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    // Writers pad with NUL.
    if (bytes[at] === 0) break;
    const space = bytes.indexOf(0x20, at);
    if (space === -1 || space - at > 16) throw malformed('PAX record has no length');
    const length = parseDecimal(bytes.toString('latin1', at, space), 'PAX record length');
    const end = at + length;
    const equals = bytes.indexOf(0x3d, space);
    if (end > bytes.length || bytes[end - 1] !== 0x0a || equals === -1 || equals >= end - 1) {
      throw malformed('PAX record does not fit');
    }
    const keyword = bytes.toString('latin1', space + 1, equals);
    apply(records, sparseNumbers, keyword, bytes.subarray(equals + 1, end - 1));
    at = end;
  }
  if (sparseNumbers.length > 0) records.sparseRegions = pairUp(sparseNumbers);
  return records;
}

function apply(records: PaxRecords, sparseNumbers: number[], keyword: string, value: Buffer): void {
  const text = value.toString('latin1');
  switch (keyword) {
    case 'path':
      records.path = withoutNul(text);
      break;
    case 'linkpath':
      records.linkTarget = withoutNul(text);
      break;
    case 'size':
      records.size = parseDecimal(text, 'size');
      break;
    case 'uid':
      records.uid = parseDecimal(text, 'uid');
      break;
    case 'gid':
      records.gid = parseDecimal(text, 'gid');
      break;
    case 'mtime':
      if (!/^-?[0-9]{1,12}(\.[0-9]{1,20})?$/.test(text)) throw malformed('mtime is not a number');
      records.modified = Number(text);
      break;
    case 'GNU.sparse.name':
      records.sparsePath = withoutNul(text);
      break;
    case 'GNU.sparse.size':
    case 'GNU.sparse.realsize':
      records.sparseSize = parseDecimal(text, 'sparse size');
      break;
    case 'GNU.sparse.major':
      records.sparseMapInData = text === '1';
      break;
    case 'GNU.sparse.map':
      for (const item of text.split(',')) sparseNumbers.push(parseDecimal(item, 'sparse map'));
      break;
    case 'GNU.sparse.offset':
    case 'GNU.sparse.numbytes':
      sparseNumbers.push(parseDecimal(text, 'sparse map'));
      break;
    default:
      if (keyword.startsWith(xattrPrefix)) records.xattrs.set(keyword.slice(xattrPrefix.length), Buffer.from(value));
  }
}

/** Pairs offset and length. @throws SealpodError IMG_FORMAT */
export function pairUp(numbers: readonly number[]): SparseRegion[] {
  if (numbers.length % 2 !== 0) throw malformed('sparse map has an odd number of items');
  return numbers.flatMap((offset, at) => (at % 2 === 0 ? [{ offset, length: numbers[at + 1] ?? 0 }] : []));
}

function withoutNul(text: string): string {
  if (text.includes('\0')) throw malformed('a path holds NUL');
  return text;
}
