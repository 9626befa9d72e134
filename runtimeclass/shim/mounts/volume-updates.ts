import { type FSWatcher, readlinkSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from '../log.ts';
import type { Copy } from './plan.ts';

/** Volumes whose content the kubelet replaces while a pod runs, by the folder the kubelet gives them. */
const updated = /\/volumes\/kubernetes\.io~(?:configmap|secret|projected|downward-api)\/[^/]+$/;
/** The link that the kubelet turns, in one step, from the old content of a volume to the new one. */
const contentLink = '..data';
/** Errors in a row after which a volume is given up: its guest refuses the copies. */
const maxFailures = 5;
const retryMs = 2000;

function contentOf(source: string): string | undefined {
  try {
    return readlinkSync(join(source, contentLink));
  } catch {
    // Not there yet, or the volume is being taken down.
    return undefined;
  }
}

/** One volume that is watched. */
class WatchedVolume {
  readonly #copy: Copy;
  readonly #send: (copy: Copy) => Promise<void>;
  readonly #log: Logger;
  readonly #watcher: FSWatcher;
  #sent: string | undefined;
  #sending = true;
  #closed = false;
  #failures = 0;

  constructor(copy: Copy, send: (copy: Copy) => Promise<void>, log: Logger) {
    this.#copy = copy;
    this.#send = send;
    this.#log = log;
    this.#sent = contentOf(copy.source);
    this.#watcher = watch(copy.source, { persistent: false }, (_event, name) => {
      if (name === contentLink) this.check();
    });
    // The folder goes with the pod.
    this.#watcher.on('error', (error) => log.debug('no longer watching a volume', { volume: copy.source, error }));
  }

  /** To be called once the volume was copied first: what changed since then is sent now. */
  begin(): void {
    this.#sending = false;
    this.check();
  }

  /** Sends the volume where its content is another than was sent last. */
  check(): void {
    if (this.#sending || this.#closed) return;
    const content = contentOf(this.#copy.source);
    if (content === undefined || content === this.#sent) return;
    this.#sending = true;
    void this.#send(this.#copy).then(
      () => {
        this.#sent = content;
        this.#failures = 0;
        this.#sending = false;
        // It may have changed again in the meantime.
        this.check();
      },
      (error) => {
        this.#sending = false;
        this.#failures += 1;
        this.#log.info('cannot update a volume in the guest', { volume: this.#copy.source, error });
        if (this.#failures < maxFailures) setTimeout(() => this.check(), retryMs).unref();
      },
    );
  }

  close(): void {
    this.#closed = true;
    this.#watcher.close();
  }
}

/**
 * Keeps the guest's copies of ConfigMap, Secret, projected and downward API volumes as the kubelet has them. The link
 * `..data` is copied after what it leads to, so that a container sees the old or the new content, never a mixture. What
 * is in the guest already stays there, unreachable, until the container ends.
 */
export class VolumeUpdates {
  readonly #volumes: readonly WatchedVolume[];

  /** Watches; made before the first copy, so that no change is missed. `send` copies one volume into the guest. */
  constructor(copies: readonly Copy[], send: (copy: Copy) => Promise<void>, log: Logger) {
    this.#volumes = copies
      .filter(({ source }) => updated.test(source))
      .map((copy) => new WatchedVolume(copy, send, log));
  }

  /** To be called after the first copy. */
  begin(): void {
    for (const volume of this.#volumes) volume.begin();
  }

  close(): void {
    for (const volume of this.#volumes) volume.close();
  }
}
