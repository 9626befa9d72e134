import type { RateLimitConfig } from '../config.ts';

interface Bucket {
  tokens: number;
  refilledAt: number;
}

/** Addresses that are remembered; a bucket that was full again is forgotten first. */
const mostAddresses = 50_000;

/** The part of an address that one client can be held to: all of an IPv4 address, the /64 of an IPv6 one. */
export function clientOf(address: string): string {
  const v4 = /^(?:::ffff:)?(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (v4 !== undefined) return v4;
  const [head = '', tail] = address.split('%', 1)[0]?.toLowerCase().split('::') ?? [];
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const after = tail === '' ? 0 : tail.split(':').length;
    while (groups.length + after < 8) groups.push('0');
  }
  return groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':');
}

/** Token buckets: one for each client address, one for all together. */
export class RateLimiter {
  readonly #perAddress: RateLimitConfig;
  readonly #global: RateLimitConfig;
  readonly #now: () => number;
  readonly #buckets = new Map<string, Bucket>();
  readonly #all: Bucket;
  #sweptAt: number;

  constructor(limits: { readonly perAddress: RateLimitConfig; readonly global: RateLimitConfig }, now: () => number) {
    this.#perAddress = limits.perAddress;
    this.#global = limits.global;
    this.#now = now;
    this.#sweptAt = now();
    this.#all = { tokens: limits.global.burst, refilledAt: now() };
  }

  /** Takes a token for a request from this address. False: refuse it. */
  take(address: string): boolean {
    const now = this.#now();
    const client = clientOf(address);
    let bucket = this.#buckets.get(client);
    if (bucket === undefined) {
      if (this.#buckets.size >= mostAddresses) this.#forget(now);
      bucket = { tokens: this.#perAddress.burst, refilledAt: now };
      this.#buckets.set(client, bucket);
    }
    refill(bucket, this.#perAddress, now);
    refill(this.#all, this.#global, now);
    if (bucket.tokens < 1 || this.#all.tokens < 1) return false;
    bucket.tokens -= 1;
    this.#all.tokens -= 1;
    return true;
  }

  /** Makes room, rarely and for many at once: a flood of new addresses must not cost a walk for each. */
  #forget(now: number): void {
    const refillTime = (this.#perAddress.burst / this.#perAddress.perSecond) * 1000;
    if (now - this.#sweptAt >= refillTime) {
      this.#sweptAt = now;
      for (const [client, bucket] of this.#buckets) {
        if (now - bucket.refilledAt >= refillTime) this.#buckets.delete(client);
      }
    }
    // Still full: as many clients at once are an attack; the oldest make room.
    for (const client of this.#buckets.keys()) {
      if (this.#buckets.size < mostAddresses * 0.9) break;
      this.#buckets.delete(client);
    }
  }
}

function refill(bucket: Bucket, { perSecond, burst }: RateLimitConfig, now: number): void {
  bucket.tokens = Math.min(burst, bucket.tokens + (Math.max(0, now - bucket.refilledAt) * perSecond) / 1000);
  bucket.refilledAt = now;
}
