import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

/** Listens to containerd's own events: what it started, whatever the parts of sealpod say of it. */
export class ContainerStarts {
  readonly #child: ChildProcess;
  readonly #imageOf = new Map<string, string>();
  readonly #started: string[] = [];
  #rest = '';

  constructor(socket: string) {
    this.#child = spawn('ctr', ['--address', socket, 'events'], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      const lines = `${this.#rest}${chunk.toString('utf8')}`.split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) this.#read(line);
    });
  }

  /** Images, by reference, of the containers that were started so far; those of pods themselves (sandboxes) left out. */
  images(): readonly string[] {
    return this.#started
      .flatMap((id) => this.#imageOf.get(id) ?? [])
      .filter((image) => !image.includes('/sealpod/sandbox:'));
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill();
    await exited;
  }

  #read(line: string): void {
    const [, topic, text] = /\s(\/[a-z/-]+)\s(\{.*\})$/.exec(line) ?? [];
    if (topic === '/containers/create') {
      const { id, image } = JSON.parse(text ?? '') as { readonly id: string; readonly image?: string };
      this.#imageOf.set(id, image ?? '');
    } else if (topic === '/tasks/start') {
      this.#started.push((JSON.parse(text ?? '') as { readonly container_id: string }).container_id);
    }
  }
}
