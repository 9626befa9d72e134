import type { JsonValue } from '@sealpod/protocol/json';

/** A reproducible source of numbers: xorshift32. Not for secrets. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed | 0) === 0 ? 1 : seed | 0;
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % Math.max(limit, 1);
  }

  pick<T>(values: readonly T[]): T {
    const value = values[this.below(values.length)];
    if (value === undefined) throw new RangeError('nothing to pick from');
    return value;
  }
}

const edges = [0, 1, 0x7f, 0x80, 0xff];
const numbers = [0, -1, 1, 255, 256, 65_536, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, 0.5];
const longest = 64 * 1024;

/** Changes bytes: flips bits, sets edge values, cuts, repeats, inserts and overwrites lengths. */
export function mutateBytes(bytes: Buffer, random: Random): Buffer {
  let changed = Buffer.from(bytes);
  for (let times = 1 + random.below(4); times > 0; times -= 1) {
    const at = random.below(changed.length);
    switch (random.below(7)) {
      case 0:
        if (changed.length > 0) changed[at] = (changed[at] ?? 0) ^ (1 << random.below(8));
        break;
      case 1:
        if (changed.length > 0) changed[at] = random.pick(edges);
        break;
      case 2:
        changed = changed.subarray(0, at);
        break;
      case 3:
        changed = Buffer.concat([changed.subarray(0, at), changed.subarray(random.below(changed.length))]);
        break;
      case 4:
        changed = Buffer.concat([
          changed.subarray(0, at),
          Buffer.alloc(random.below(64), random.pick(edges)),
          changed.subarray(at),
        ]);
        break;
      case 5:
        changed.subarray(at, at + random.pick([2, 4, 8])).fill(0xff);
        break;
      default:
        changed.subarray(at, at + random.below(64)).fill(0);
    }
  }
  return Buffer.from(changed.subarray(0, longest));
}

/** Changes one place of a JSON value: structure, or the bytes inside a text. */
export function mutateJson(value: JsonValue, random: Random): JsonValue {
  if (random.below(8) === 0) return replacement(value, random);
  if (Array.isArray(value)) {
    const items: readonly JsonValue[] = value;
    if (items.length === 0) return [null];
    const at = random.below(items.length);
    const kind = random.below(8);
    if (kind === 0) return items.slice(0, at);
    if (kind === 1) return [...items, ...items.slice(0, 256)];
    return items.map((item, index) => (index === at ? mutateJson(item, random) : item));
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value as Readonly<Record<string, JsonValue>>);
    if (entries.length === 0) return { x: 1 };
    const at = random.below(entries.length);
    if (random.below(12) === 0) return Object.fromEntries(entries.filter((_, index) => index !== at));
    return Object.fromEntries(
      entries.map(([name, member], index) => [name, index === at ? mutateJson(member, random) : member]),
    );
  }
  return typeof value === 'string' ? mutateText(value, random) : replacement(value, random);
}

/** A text of hexadecimal or base64 is mostly changed as the bytes that it stands for. */
function mutateText(text: string, random: Random): string {
  const encoding = encodingOf(text);
  if (encoding === undefined || random.below(6) === 0) return mutateBytes(Buffer.from(text), random).toString('latin1');
  return mutateBytes(Buffer.from(text, encoding), random).toString(encoding);
}

function encodingOf(text: string): 'hex' | 'base64' | 'base64url' | undefined {
  if (text.length < 4) return undefined;
  return (['hex', 'base64', 'base64url'] as const).find(
    (encoding) => Buffer.from(text, encoding).toString(encoding) === text,
  );
}

function replacement(value: JsonValue, random: Random): JsonValue {
  switch (random.below(6)) {
    case 0:
      return random.pick(numbers);
    case 1:
      return null;
    case 2:
      return [value, value];
    case 3:
      return { value };
    case 4:
      return 'A'.repeat(random.below(2048));
    default:
      return random.below(2) === 0;
  }
}
