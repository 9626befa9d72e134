import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { killProcess, runningProcesses } from '@sealpod/processes';
import { root, type TestEnvironment } from './environment.ts';

/** Waits until `condition` gives something else than undefined or false. Throws after `timeoutMs` with `what`. */
export async function eventually<T>(
  what: string,
  condition: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 60_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const result = await condition();
    if (result !== undefined && result !== false) return result;
    if (Date.now() > deadline) throw new Error(`did not come to pass in ${timeoutMs / 1000} s: ${what}`);
    await delay(50);
  }
}

/** `npm start` as a user runs it: the set-up program and below it the command line, in a process group of its own. */
export class Started {
  readonly #child: ChildProcess;
  #text = '';
  #code: number | undefined;

  constructor(environment: TestEnvironment, ...args: readonly string[]) {
    this.#child = spawn('node', ['cli/setup/main.mjs', 'start', ...args], {
      cwd: root,
      env: environment.environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on('data', (chunk: Buffer) => {
        this.#text += chunk.toString('utf8');
      });
    this.#child.once('close', (code, signal) => {
      this.#code = code ?? (signal === null ? -1 : -2);
    });
  }

  /** Everything it printed so far. */
  get text(): string {
    return this.#text;
  }

  /** Waits until it printed `text`. */
  async printed(text: string): Promise<void> {
    await eventually(`output "${text}" of npm start, which printed:\n${this.#text}`, () => {
      if (this.#code !== undefined && !this.#text.includes(text)) throw new Error(`it ended before:\n${this.#text}`);
      return this.#text.includes(text);
    });
  }

  /** Sends a signal to every process of its group, as a terminal does at Ctrl-C. */
  signalGroup(signal: NodeJS.Signals): void {
    if (this.#child.pid !== undefined && this.#code === undefined) process.kill(-this.#child.pid, signal);
  }

  /** Kills, of its group, the program whose script is `script`, and nothing else. */
  kill(script: string): void {
    const group = this.#child.pid;
    const program = runningProcesses().find(
      ({ parent, arguments: words }) => parent === group && words.includes(script),
    );
    if (program === undefined) throw new Error(`npm start runs no ${script}`);
    killProcess(program.pid);
  }

  /** Its exit code, once it has ended and all its output is read; negative where a signal ended it. */
  ended(timeoutMs = 240_000): Promise<number> {
    return eventually('the end of npm start', () => this.#code, timeoutMs);
  }
}
