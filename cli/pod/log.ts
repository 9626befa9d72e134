import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/** Text of each line of a log in CRI format (`<time> <stream> <tag> <text>`), without the rest. */
export function logText(log: string): string {
  return log
    .split('\n')
    .map((line) => line.split(' ').slice(3).join(' '))
    .join('\n');
}

/** The output of a container once it satisfies `enough`. @throws SealpodError INTERNAL after 20 s */
export async function readLog(file: string, enough: (text: string) => boolean): Promise<string> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const text = existsSync(file) ? logText(readFileSync(file, 'utf8')) : '';
    if (enough(text)) return text;
    if (Date.now() > deadline) {
      throw new SealpodError('INTERNAL', 'the container did not print what it should', {
        actual: text.slice(0, 500) || 'nothing',
        source: file,
      });
    }
    await delay(50);
  }
}
