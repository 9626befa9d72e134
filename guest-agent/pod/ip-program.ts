import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { SealpodError } from '@sealpod/protocol/errors';

const timeoutMs = 30_000;
const maxOutputBytes = 4 * 1024 * 1024;
const maxErrorCharacters = 4096;
const batch = ['ip', '-json', '-batch', '-'] as const;

/**
 * One `ip` that takes commands for as long as it runs (`ip -batch`): where processors are emulated a program takes a tenth
 * of a second to start, and a pod's network takes several. It is started anew where a command failed, which ends it.
 */
export class IpProgram {
  readonly #commandLine: readonly [string, ...string[]];
  #running: Running | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** @param prefix a command line that runs the program elsewhere, as `ip netns exec NAME` does */
  constructor(prefix: readonly string[] = []) {
    const [program = 'ip', ...rest] = [...prefix, ...batch];
    this.#commandLine = [program, ...rest];
  }

  /** Starts the program, so that nobody has to wait for that later. A failure is told by the next command. */
  start(): void {
    const [program, ...words] = this.#commandLine;
    if (this.#running === undefined || this.#running.ended) this.#running = new Running(spawn(program, words, options));
  }

  /**
   * Runs commands of checked words, one after the other to the first that fails. The last one shows something, and no other
   * does; resolves with what it prints, JSON.
   *
   * @throws SealpodError INTERNAL with the command that failed
   */
  run(commands: readonly (readonly string[])[]): Promise<string> {
    const turn = this.#last.then(() => {
      this.start();
      return this.#running?.run(commands.map((words) => words.join(' '))) ?? '';
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  /** Ends the program. */
  close(): void {
    this.#running?.end();
  }
}

const options = { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' } };

/** The program from its start to its end. */
class Running {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #closed: Promise<string>;
  #output = '';
  #errors = '';
  /** How many lines it was given: it counts from its start. */
  #lines = 0;
  #shown: ((line: string) => void) | undefined;
  ended = false;

  constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    // What it did not read is told by how it ended.
    child.stdin.on('error', () => undefined);
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.#take(text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(0, maxErrorCharacters);
    });
    this.#closed = new Promise((resolve) => {
      const end = (how: string): void => {
        this.ended = true;
        resolve(how);
      };
      child.once('error', (error) => end(error.message));
      child.once('close', (code, signal) => end(this.#errors.trim() || `it ended with ${code ?? signal}`));
    });
  }

  async run(lines: readonly string[]): Promise<string> {
    const before = this.#lines;
    this.#lines += lines.length;
    this.#output = '';
    const shown = new Promise<{ readonly line: string }>((resolve) => {
      this.#shown = (line) => resolve({ line });
    });
    const timer = setTimeout(() => this.#kill(`it did not answer within ${timeoutMs} ms`), timeoutMs);
    try {
      this.#child.stdin.write(`${lines.join('\n')}\n`);
      const result = await Promise.race([shown, this.#closed]);
      if (typeof result !== 'string') return result.line;
      const failed = /Command failed -:(\d+)/.exec(result)?.[1];
      const command = failed === undefined ? lines[0] : lines[Number(failed) - before - 1];
      throw new SealpodError('INTERNAL', `ip ${command}: ${result}`);
    } finally {
      clearTimeout(timer);
      this.#shown = undefined;
    }
  }

  end(): void {
    this.#child.stdin.end();
  }

  #take(text: string): void {
    this.#output += text;
    const end = this.#output.indexOf('\n');
    if (end >= 0) this.#shown?.(this.#output.slice(0, end));
    else if (this.#output.length > maxOutputBytes) this.#kill(`it prints more than ${maxOutputBytes} bytes`);
  }

  #kill(reason: string): void {
    this.#errors = reason;
    this.#child.kill('SIGKILL');
  }
}
