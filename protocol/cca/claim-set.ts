import { asCborBytes, asCborInteger, asCborText, type CborMap } from '../cose/index.ts';

/** Bytes of a measurement: SHA-256, SHA-384 or SHA-512. */
export const measurementBytes = [32, 48, 64] as const;

/** Reads typed claims of a claims set by their integer labels. Each method throws SealpodError EV_FORMAT naming the claim. */
export class ClaimSet {
  readonly #claims: CborMap;

  constructor(claims: CborMap) {
    this.#claims = claims;
  }

  has(label: number): boolean {
    return this.#claims.has(label);
  }

  value(label: number): ReturnType<CborMap['get']> {
    return this.#claims.get(label);
  }

  bytes(label: number, what: string, ...lengths: number[]): Buffer {
    return asCborBytes(this.#claims.get(label), what, ...lengths);
  }

  text(label: number, what: string): string {
    return asCborText(this.#claims.get(label), what);
  }

  integer(label: number, what: string): number {
    return asCborInteger(this.#claims.get(label), what);
  }

  optionalText(label: number, what: string): string | undefined {
    return this.has(label) ? this.text(label, what) : undefined;
  }
}
