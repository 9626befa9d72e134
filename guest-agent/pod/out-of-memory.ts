import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import { keyed } from './statistics.ts';

/** Containers in which the kernel killed a process for want of memory, told to one waiting reader each. */
export class OutOfMemoryEvents {
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #events: string[] = [];
  #waiting: ((containerId: string) => void)[] = [];

  /** Watches a container's cgroup (v2). A cgroup without `memory.events` (no memory controller) has nothing to tell. */
  watch(containerId: string, cgroup: string): void {
    const file = join(cgroup, 'memory.events');
    let killed = 0n;
    const look = async () => {
      const now = (await keyed(file))['oom_kill'] ?? 0n;
      if (now > killed) this.#tell(containerId);
      killed = now > killed ? now : killed;
    };
    let watcher: FSWatcher;
    try {
      watcher = watch(file, () => {
        look().catch(() => this.forget(containerId));
      });
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw thrown;
    }
    watcher.on('error', () => this.forget(containerId));
    watcher.unref();
    this.#watchers.set(containerId, watcher);
  }

  forget(containerId: string): void {
    this.#watchers.get(containerId)?.close();
    this.#watchers.delete(containerId);
  }

  close(): void {
    for (const containerId of [...this.#watchers.keys()]) this.forget(containerId);
  }

  /** The next container it happens to. Rejects when `signal` aborts. */
  next(signal: AbortSignal): Promise<string> {
    const event = this.#events.shift();
    if (event !== undefined) return Promise.resolve(event);
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const deliver = (containerId: string) => {
        signal.removeEventListener('abort', abort);
        resolve(containerId);
      };
      const abort = () => {
        this.#waiting = this.#waiting.filter((waiting) => waiting !== deliver);
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.push(deliver);
    });
  }

  #tell(containerId: string): void {
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) waiting(containerId);
    else this.#events.push(containerId);
  }
}
