import { SealpodError } from '@sealpod/protocol/errors';

/** What an image may cost at most, over all its layers. */
export interface UnpackLimits {
  /** Files, directories and links. */
  readonly maxEntries: number;
  /** Bytes of file content. */
  readonly maxBytes: number;
}

export const defaultUnpackLimits: UnpackLimits = { maxEntries: 1_000_000, maxBytes: 64 * 1024 ** 3 };

/** Counts what an image has used of its limits. */
export class UnpackBudget {
  readonly #limits: UnpackLimits;
  #entries = 0;
  #bytes = 0;

  constructor(limits: UnpackLimits) {
    this.#limits = limits;
  }

  /** @throws SealpodError IMG_UNPACK */
  takeEntry(): void {
    this.#entries += 1;
    if (this.#entries > this.#limits.maxEntries) throw exceeded('entries', this.#limits.maxEntries);
  }

  /** @throws SealpodError IMG_UNPACK */
  takeBytes(count: number): void {
    this.#bytes += count;
    if (this.#bytes > this.#limits.maxBytes) throw exceeded('bytes', this.#limits.maxBytes);
  }
}

function exceeded(what: string, limit: number): SealpodError {
  return new SealpodError('IMG_UNPACK', `the image unpacks to too many ${what}`, { expected: `at most ${limit}` });
}
