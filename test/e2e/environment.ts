import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { layoutOf } from '@sealpod/cli/layout';
import { residueOf } from './residue.ts';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const sealpod = join(root, 'cli/bin/sealpod');

/** What a command left: its exit code and everything it printed. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; never throws for an exit code. */
export function run(
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  input?: string,
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      { cwd: root, env: environment, maxBuffer: 64 << 20, timeout: 280_000 },
      (error, stdout, stderr) => {
        if (error !== null && typeof error.code === 'string') reject(error);
        else resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr });
      },
    );
    child.stdin?.end(input ?? '');
  });
}

/** A development environment of the test's own, beside any other on the machine. */
export class TestEnvironment {
  #home: string | undefined;

  constructor(home?: string) {
    this.#home = home;
  }

  /** Made when it is first asked for: suites that are skipped make none. */
  get home(): string {
    this.#home ??= mkdtempSync(join(tmpdir(), 'sealpod-e2e-'));
    return this.#home;
  }

  /** Sockets and machines of this environment. */
  get runDirectory(): string {
    return layoutOf(this.home).run;
  }

  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, SEALPOD_HOME: this.home };
  }

  /** Runs a `sealpod` verb. */
  sealpod(...args: readonly string[]): Promise<CommandResult> {
    return run(sealpod, args, this.environment);
  }

  /** As `sealpod`, with text on standard input. */
  sealpodWithInput(input: string, ...args: readonly string[]): Promise<CommandResult> {
    return run(sealpod, args, this.environment, input);
  }

  /** As `sealpod` with `-o json`, and expects success. */
  async json(...args: readonly string[]): Promise<unknown> {
    const result = await this.sealpod('-o', 'json', ...args);
    if (result.code !== 0) throw new Error(`sealpod ${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    return JSON.parse(result.stdout);
  }

  /** Starts a verb and returns the process, for signals. */
  spawn(...args: readonly string[]): ReturnType<typeof spawn> {
    return spawn(sealpod, args, { cwd: root, env: this.environment, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  state(): Record<string, unknown> & { readonly daemons: readonly { readonly name: string; readonly pid: number }[] } {
    return JSON.parse(readFileSync(join(this.home, 'state.json'), 'utf8'));
  }

  /** What of this environment is left on the machine; empty where all is gone. See `residueOf`. */
  residue(): string[] {
    return residueOf(this);
  }

  async remove(): Promise<void> {
    if (this.#home === undefined) return;
    await this.sealpod('down');
    rmSync(this.#home, { recursive: true, force: true });
  }
}
