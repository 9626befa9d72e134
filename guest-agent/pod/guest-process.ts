import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { failedPrecondition } from './failures.ts';
import { makePipes } from './fifo.ts';
import { OutputBuffer } from './output-buffer.ts';

const signalExitBase = 128;
/** How long after the exit output may still come from processes that inherited the stream. */
const drainMs = 500;
/** Control-D: what a terminal sends where its user ends the input. */
const endOfTransmission = Buffer.from([4]);

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface ProcessStart {
  readonly command: string;
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly terminal?: TerminalSize;
  /** A folder of this process' own, that does not exist. */
  readonly scratch: string;
}

/** One process that the agent started for the pod: its streams, its terminal, its exit status. */
export interface GuestProcess {
  readonly stdout: OutputBuffer;
  readonly stderr: OutputBuffer;
  /** Exit status as a shell has it: 128 + signal where a signal ended it. Resolves once, never rejects. */
  readonly exited: Promise<number>;
  /** Resolves when the bytes are taken. Rejects with FAILED_PRECONDITION after the standard input was closed. */
  write(data: Uint8Array): Promise<void>;
  closeStdin(): void;
  /**
   * Sets the size of the terminal, and of another one that hangs on it: crun has a second terminal for what it starts, and
   * does not pass a new size on. Throws FAILED_PRECONDITION where there is no terminal.
   *
   * @param inner descriptor of the other terminal
   */
  resize(size: TerminalSize, inner?: number): void;
}

/** Starts a process with pipes, or with a terminal. Rejects where it cannot be started. */
export function startProcess(start: ProcessStart): Promise<GuestProcess> {
  return start.terminal === undefined ? startPiped(start) : startInTerminal(start, start.terminal);
}

async function startPiped(start: ProcessStart): Promise<GuestProcess> {
  const { child, stdin, sources } = await spawnPiped(start);
  const exited = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? signalExitBase + (signal ? constants.signals[signal] : 0)));
  });
  // The reader went away (EPIPE): the process closed its input or ended; `write` reports it.
  stdin.on('error', () => stdin.destroy());
  const [stdout, stderr] = [new OutputBuffer(), new OutputBuffer()];
  stdout.attach(sources[0]);
  stderr.attach(sources[1]);
  await Promise.race([once(child, 'spawn'), exited]);
  return {
    stdout,
    stderr,
    exited: exited.then((status) => {
      stdin.destroy();
      setTimeout(() => {
        for (const source of sources) source.destroy();
      }, drainMs).unref();
      return status;
    }),
    write: (data) => writeAll(stdin, data),
    closeStdin: () => stdin.end(),
    resize: () => {
      throw failedPrecondition('the process has no terminal');
    },
  };
}

interface PipedChild {
  readonly child: ChildProcess;
  readonly stdin: Writable;
  readonly sources: readonly [stdout: Readable, stderr: Readable];
}

async function spawnPiped(start: ProcessStart): Promise<PipedChild> {
  const pipes = await makePipes(start.scratch);
  if (pipes === undefined) {
    const child = spawn(start.command, start.arguments, { stdio: 'pipe', env: start.environment });
    return { child, stdin: child.stdin, sources: [child.stdout, child.stderr] };
  }
  try {
    const child = spawn(start.command, start.arguments, { stdio: [...pipes.child], env: start.environment });
    return {
      child,
      stdin: new Socket({ fd: pipes.stdin, readable: false, writable: true }),
      sources: [
        new Socket({ fd: pipes.stdout, readable: true, writable: false }),
        new Socket({ fd: pipes.stderr, readable: true, writable: false }),
      ],
    };
  } finally {
    for (const descriptor of pipes.child) closeSync(descriptor);
  }
}

function writeAll(stdin: Writable, data: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!stdin.writable) reject(failedPrecondition('the standard input is closed'));
    else stdin.write(data, (error) => (error ? reject(failedPrecondition('the standard input is closed')) : resolve()));
  });
}

async function startInTerminal(start: ProcessStart, size: TerminalSize): Promise<GuestProcess> {
  // Loaded with the first terminal: the native module costs time at boot, and most pods never need it.
  const { spawn: spawnTerminal } = await import('@lydell/node-pty');
  const terminal = spawnTerminal(start.command, [...start.arguments], {
    rows: size.rows,
    cols: size.columns,
    env: { ...start.environment },
    encoding: null,
  });
  const [stdout, stderr] = [new OutputBuffer(), new OutputBuffer()];
  stdout.throttle(terminal);
  // Without an encoding the data are bytes, whatever the declared type says.
  terminal.onData((data) => stdout.push(data as unknown as Buffer));
  stderr.end();
  const exited = new Promise<number>((resolve) => {
    terminal.onExit(({ exitCode, signal }) => {
      stdout.end();
      resolve(signal === undefined || signal === 0 ? exitCode : signalExitBase + signal);
    });
  });
  const write = (data: Uint8Array) => terminal.write(Buffer.from(data) as unknown as string);
  return {
    stdout,
    stderr,
    exited,
    write: async (data) => write(data),
    closeStdin: () => write(endOfTransmission),
    resize: ({ rows, columns }, inner) => {
      terminal.resize(columns, rows);
      // The library sets the size of the descriptor that its object holds, and has no function for any other.
      if (inner !== undefined) terminal.resize.call({ _fd: inner } as never, columns, rows);
    },
  };
}
