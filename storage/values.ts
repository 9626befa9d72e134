import { SealpodError } from '@sealpod/protocol/errors';
import type { Entry } from './storage.ts';

const decoder = new TextDecoder('utf-8', { fatal: true });

/** The text of an entry. Throws `STORAGE` where it is not UTF-8. */
export function textOf(entry: Entry): string {
  try {
    return decoder.decode(entry.value);
  } catch (cause) {
    throw new SealpodError('STORAGE', `the stored value of ${entry.key} is not text`, { cause });
  }
}

/** The JSON value of an entry; its shape is not verified. Throws `STORAGE` where it is not JSON. */
export function jsonOf(entry: Entry): unknown {
  try {
    return JSON.parse(textOf(entry));
  } catch (cause) {
    throw new SealpodError('STORAGE', `the stored value of ${entry.key} is not JSON`, { cause });
  }
}
