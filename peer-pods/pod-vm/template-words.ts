/**
 * The word of the command line by which an image says that its machines are cloned from one that was booted before. It is
 * measured, so a verifier sees it; the guest's init and its agent hold to it.
 */
export const templateSwitch = 'sealpod.template=1';

/** Whether machines of an image with this command line start from a template, and cannot start otherwise. */
export function startsFromTemplate(line: string): boolean {
  return line.split(/\s+/).includes(templateSwitch);
}

/** What the init of a template prints once it waits, and what that of a clone prints once it has read its own line. */
export const templateReady = 'sealpod: template ready';
export const templateWoken = 'sealpod: template woken';

/** First word of the line that wakes a clone; see `wakeLine`. */
export const wakeWord = 'sealpod-wake';

/**
 * The line that wakes a clone: the time, the address of its network card, and bytes that are mixed into its kernel's random
 * numbers. All of it is the host's word, as it is in a machine that boots: the guest believes none of it.
 */
export function wakeLine(now: Date, macAddress: string | undefined, seed: Uint8Array): string {
  const seconds = Math.round(now.getTime() / 1000);
  return `${wakeWord} ${seconds} ${macAddress ?? 'none'} ${Buffer.from(seed).toString('hex')}\n`;
}
