import { execFile } from 'node:child_process';
import { statSync } from 'node:fs';
import { promisify } from 'node:util';
import { SealpodError } from '@sealpod/protocol/errors';

const run = promisify(execFile);

/** What `ip` and `tc` may print, and how long they may take. */
const maxOutputBytes = 4 * 1024 * 1024;
const timeoutMs = 10_000;

/**
 * Checks that `path` is a network namespace and not the one this process lives in: a pod's traffic is redirected there,
 * the host's must never be. Throws NETWORK.
 */
export function checkNamespace(path: string): void {
  let same: boolean;
  try {
    const [theirs, ours] = [statSync(path), statSync('/proc/self/ns/net')];
    // Namespaces are files of one special file system (nsfs), which has one device number. Another kind of namespace
    // passes here and is refused by the system when it is entered.
    if (theirs.dev !== ours.dev) {
      throw new SealpodError('NETWORK', `${path} is not a network namespace`, { fix: 'check what the runtime passes' });
    }
    same = theirs.ino === ours.ino;
  } catch (cause) {
    if (cause instanceof SealpodError) throw cause;
    throw new SealpodError('NETWORK', `the network namespace ${path} cannot be opened`, { cause });
  }
  if (same) {
    throw new SealpodError('NETWORK', `${path} is the network namespace of the host`, {
      expected: 'a network namespace of the pod alone',
      fix: 'pods on the host network cannot run in a VM; remove hostNetwork',
    });
  }
}

/** Whether the namespace is still there. */
export function namespaceExists(path: string): boolean {
  const [theirs, ours] = [statSync(path, { throwIfNoEntry: false }), statSync('/proc/self/ns/net')];
  return theirs?.dev === ours.dev;
}

type NetworkTool = 'ip' | 'tc' | 'iptables' | 'sysctl';

/** Runs a network tool inside a network namespace. Throws NETWORK with what the tool printed. */
export async function runInNamespace(path: string, tool: NetworkTool, args: readonly string[]): Promise<string> {
  try {
    const { stdout } = await run('nsenter', [`--net=${path}`, '--', tool, ...args], {
      timeout: timeoutMs,
      maxBuffer: maxOutputBytes,
      encoding: 'utf8',
    });
    return stdout;
  } catch (cause) {
    const { stderr } = cause as { stderr?: string };
    const said = stderr?.trim() || (cause instanceof Error ? cause.message : String(cause));
    throw new SealpodError('NETWORK', `${tool} ${args.join(' ')}: ${said}`, { cause });
  }
}

/** Runs `ip` or `tc` inside a network namespace and parses its JSON. */
export async function jsonInNamespace(path: string, tool: 'ip' | 'tc', args: readonly string[]): Promise<unknown[]> {
  // tc prints nothing at all where it finds nothing.
  const parsed: unknown = JSON.parse((await runInNamespace(path, tool, ['-j', ...args])).trim() || '[]');
  if (!Array.isArray(parsed)) throw new SealpodError('NETWORK', `${tool} ${args.join(' ')}: not a JSON list`);
  return parsed;
}
