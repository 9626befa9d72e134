import {
  blockSize,
  malformed,
  parseDecimal,
  parseHeader,
  parseOldSparseHeader,
  parseSparseExtension,
  type RawHeader,
  type SparseRegion,
  type TarEntry,
  type TarEntryType,
} from './header.ts';
import { type PaxRecords, pairUp, parsePax } from './pax.ts';

/** Receives a tar archive in its order: `entry`, any number of `data`, `end`; for each entry. */
export interface TarHandler {
  entry(entry: TarEntry): void;
  /** Bytes of the current file and where in it they belong; the buffer is valid during the call only. */
  data(chunk: Buffer, position: number): void;
  end(): void;
}

/** Largest PAX header or GNU long name. */
const maxMetadataBytes = 1024 * 1024;
const maxSparseRegions = 65_536;

const typesByFlag: Readonly<Record<string, TarEntryType>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
};

type State = 'header' | 'metadata' | 'sparse-extension' | 'sparse-map' | 'data' | 'padding' | 'ended';

/**
 * Reads a tar archive that arrives in pieces of any size: ustar, PAX and GNU long names, base-256 numbers, and the four
 * GNU sparse formats. Synchronous and without copies of file content. As Go's reader, it stops at the first two blocks
 * of zeros and ignores what follows.
 */
export class TarReader {
  readonly #handler: TarHandler;
  readonly #block = Buffer.alloc(blockSize);
  #filled = 0;
  #state: State = 'header';
  #zeroBlocks = 0;
  /** Bytes of the body still to come, and of padding behind it. */
  #remaining = 0;
  #padding = 0;
  #metadata: Buffer[] = [];
  #metadataFlag = '';
  #pax: PaxRecords | undefined;
  #longPath: string | undefined;
  #longLinkTarget: string | undefined;
  #raw: RawHeader | undefined;
  #regions: SparseRegion[] = [];
  #sparse = false;
  #realSize = 0;
  #regionAt = 0;
  #position = 0;
  #sparseMap = '';

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  /** Takes the next piece. @throws SealpodError IMG_FORMAT, and whatever the handler throws */
  write(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      switch (this.#state) {
        case 'header':
        case 'sparse-extension':
        case 'sparse-map': {
          const take = Math.min(blockSize - this.#filled, chunk.length - at);
          chunk.copy(this.#block, this.#filled, at, at + take);
          this.#filled += take;
          at += take;
          if (this.#filled === blockSize) {
            this.#filled = 0;
            this.#takeBlock();
          }
          break;
        }
        case 'metadata':
        case 'data': {
          const take = Math.min(this.#remaining, chunk.length - at);
          const piece = chunk.subarray(at, at + take);
          this.#remaining -= take;
          at += take;
          if (this.#state === 'metadata') this.#metadata.push(Buffer.from(piece));
          else this.#emitData(piece);
          if (this.#remaining === 0) this.#endBody();
          break;
        }
        case 'padding': {
          const take = Math.min(this.#padding, chunk.length - at);
          this.#padding -= take;
          at += take;
          if (this.#padding === 0) this.#state = 'header';
          break;
        }
        case 'ended':
          return;
      }
    }
  }

  /** Tells that no more will come. @throws SealpodError IMG_FORMAT where the archive breaks off */
  end(): void {
    // Some writers leave out the end marker; an archive that stops between two entries is whole.
    const whole =
      this.#state === 'ended' || (this.#state === 'header' && this.#filled === 0 && !this.#pendingMetadata());
    if (!whole) throw malformed('it breaks off');
  }

  #takeBlock(): void {
    if (this.#state === 'sparse-extension') {
      this.#takeSparseExtension();
      return;
    }
    if (this.#state === 'sparse-map') {
      this.#takeSparseMap();
      return;
    }
    const raw = parseHeader(this.#block);
    if (raw === undefined) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#state = 'ended';
      return;
    }
    this.#zeroBlocks = 0;
    if ('xgLK'.includes(raw.typeFlag)) {
      this.#startMetadata(raw);
      return;
    }
    this.#raw = raw;
    this.#regions = [];
    this.#sparse = false;
    if (raw.typeFlag !== 'S') {
      this.#startEntry();
      return;
    }
    const { regions, size, extended } = parseOldSparseHeader(this.#block);
    this.#regions = regions;
    this.#sparse = true;
    this.#realSize = size;
    if (extended) this.#state = 'sparse-extension';
    else this.#startEntry();
  }

  #startMetadata(raw: RawHeader): void {
    if (raw.size > maxMetadataBytes) throw malformed('an extended header is too large');
    this.#metadataFlag = raw.typeFlag;
    this.#startBody('metadata', raw.size);
  }

  #takeSparseExtension(): void {
    const { regions, extended } = parseSparseExtension(this.#block);
    this.#regions.push(...regions);
    if (this.#regions.length > maxSparseRegions) throw malformed('a sparse file has too many regions');
    if (!extended) this.#startEntry();
  }

  /** Numbers, one a line, padded with NUL to whole blocks: count, then offset and length of each region. */
  #takeSparseMap(): void {
    this.#remaining -= blockSize;
    if (this.#remaining < 0) throw malformed('a sparse map is longer than its file');
    this.#sparseMap += this.#block.toString('latin1');
    if (this.#sparseMap.length > maxMetadataBytes) throw malformed('a sparse map is too large');
    const lines = this.#sparseMap.split('\n');
    if (lines.length < 2) return;
    const count = parseDecimal(lines[0] ?? '', 'sparse map count');
    if (count > maxSparseRegions) throw malformed('a sparse file has too many regions');
    if (lines.length < count * 2 + 2) return;
    this.#regions = pairUp(lines.slice(1, count * 2 + 1).map((line) => parseDecimal(line, 'sparse map')));
    this.#beginData(this.#remaining);
  }

  /** Puts header and records together and hands the entry out. */
  #startEntry(): void {
    const raw = this.#raw;
    const pax = this.#pax;
    if (raw === undefined) throw malformed('entry without header');
    const size = pax?.size ?? raw.size;
    const path = pax?.sparsePath ?? pax?.path ?? this.#longPath ?? raw.path;
    const flagged = typesByFlag[raw.typeFlag];
    if (flagged === undefined) throw malformed(`unknown entry type ${JSON.stringify(raw.typeFlag)}`);
    const type = flagged === 'file' && path.endsWith('/') ? 'directory' : flagged;
    const bodySize = type === 'file' ? size : 0;
    if (pax?.sparseRegions !== undefined || pax?.sparseMapInData === true) {
      this.#sparse = true;
      this.#regions = pax.sparseRegions ?? [];
      this.#realSize = pax.sparseSize ?? size;
    }
    if (type !== 'file') this.#sparse = false;
    if (!this.#sparse) this.#realSize = bodySize;
    this.#handler.entry({
      path,
      type,
      linkTarget: pax?.linkTarget ?? this.#longLinkTarget ?? raw.linkTarget,
      size: this.#realSize,
      mode: raw.mode,
      uid: pax?.uid ?? raw.uid,
      gid: pax?.gid ?? raw.gid,
      modified: pax?.modified ?? raw.modified,
      deviceMajor: raw.deviceMajor,
      deviceMinor: raw.deviceMinor,
      xattrs: pax?.xattrs ?? noXattrs,
      sparse: this.#sparse,
    });
    const mapInData = this.#sparse && pax?.sparseMapInData === true;
    this.#pax = undefined;
    this.#longPath = undefined;
    this.#longLinkTarget = undefined;
    if (!mapInData) {
      this.#beginData(bodySize);
      return;
    }
    this.#padding = paddingOf(bodySize);
    this.#remaining = bodySize;
    this.#sparseMap = '';
    this.#state = 'sparse-map';
  }

  #beginData(size: number): void {
    this.#checkRegions(size);
    this.#regionAt = 0;
    this.#position = this.#regions[0]?.offset ?? 0;
    this.#startBody('data', size);
  }

  #checkRegions(size: number): void {
    if (!this.#sparse) return;
    let end = 0;
    let total = 0;
    for (const region of this.#regions) {
      if (region.offset < end) throw malformed('sparse regions overlap');
      end = region.offset + region.length;
      total += region.length;
    }
    if (end > this.#realSize || total !== size) throw malformed('sparse regions do not fit their file');
  }

  #startBody(state: 'metadata' | 'data', size: number): void {
    this.#remaining = size;
    this.#padding = paddingOf(size);
    this.#state = state;
    if (size === 0) this.#endBody();
  }

  #emitData(piece: Buffer): void {
    if (!this.#sparse) {
      this.#handler.data(piece, this.#position);
      this.#position += piece.length;
      return;
    }
    for (let at = 0; at < piece.length; ) {
      const region = this.#regions[this.#regionAt];
      if (region === undefined) throw malformed('sparse regions do not fit their file');
      const left = region.offset + region.length - this.#position;
      const take = Math.min(left, piece.length - at);
      if (take > 0) this.#handler.data(piece.subarray(at, at + take), this.#position);
      at += take;
      this.#position += take;
      if (take === left) {
        this.#regionAt += 1;
        this.#position = this.#regions[this.#regionAt]?.offset ?? this.#position;
      }
    }
  }

  #endBody(): void {
    if (this.#state === 'metadata') this.#endMetadata();
    else this.#handler.end();
    this.#state = this.#padding === 0 ? 'header' : 'padding';
  }

  #endMetadata(): void {
    const bytes = Buffer.concat(this.#metadata);
    this.#metadata = [];
    const text = (): string => {
      const end = bytes.indexOf(0);
      return bytes.toString('latin1', 0, end === -1 ? bytes.length : end);
    };
    if (this.#metadataFlag === 'x') this.#pax = parsePax(bytes);
    else if (this.#metadataFlag === 'L') this.#longPath = text();
    else if (this.#metadataFlag === 'K') this.#longLinkTarget = text();
    // `g`: a global header; as in Go's reader it does not change the entries.
  }

  #pendingMetadata(): boolean {
    return this.#pax !== undefined || this.#longPath !== undefined || this.#longLinkTarget !== undefined;
  }
}

const noXattrs: ReadonlyMap<string, Buffer> = new Map();

function paddingOf(size: number): number {
  return (blockSize - (size % blockSize)) % blockSize;
}
