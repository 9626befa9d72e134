import type { Expectations } from '../verifier.ts';

/**
 * Debug switches of the measured machine: what would let somebody beside the owner look into the guest. They are found
 * on the measured command line and in the measured initdata, so that no policy can be met by a machine that hides them: searched
 * are the document and its files as the guest reads them, without TOML's escapes.
 */
export function debugSwitches(
  commandLine: string | undefined,
  { initDataDigest, initData }: Pick<Expectations, 'initDataDigest' | 'initData'>,
): string[] {
  const found = (commandLine ?? '')
    .split(/\s+/)
    .map((word) => word.split('=', 1)[0] ?? '')
    .filter((name) => commandLineSwitches.has(name));
  if (initDataDigest !== undefined && initData === undefined) found.push('initdata of which only the digest is shown');
  const texts = initData === undefined ? [] : [initData.toml, ...Object.values(initData.document.data)];
  for (const [name, pattern] of initDataSwitches) {
    if (texts.some((text) => pattern.test(text))) found.push(name);
  }
  return found;
}

const commandLineSwitches = new Set([
  'sealpod.debug',
  'agent.debug_console',
  'agent.debug_console_vport',
  'systemd.debug_shell',
  'systemd.debug-shell',
  'rd.shell',
  'rd.break',
  'kgdboc',
  'kgdbwait',
]);

/** Any way of setting the rule counts that is not plainly setting it to false. */
const initDataSwitches: readonly (readonly [string, RegExp])[] = [
  ['AllowRequestsFailingPolicy', /AllowRequestsFailingPolicy(?!\s*:?=\s*false\b)/],
  ['debug_console', /\bdebug_console(_vport)?\b["']?\s*=\s*(?!false\b)/],
  ['sealpod.debug', /\bsealpod\.debug\b/],
];
