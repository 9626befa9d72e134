import { Status } from '@sealpod/protocol/gen/containerd/task_types_pb';
import { type GuestConnection, isConnectionLoss, isNotFound } from '../guest/connection.ts';
import { type InputSource, nullSink, type OutputSink, openInput, openOutput } from '../io/fifo.ts';
import type { Logger } from '../log.ts';

/** How a process ended. */
export interface Exit {
  readonly status: number;
  readonly at: Date;
}

/** The paths of a process's standard streams, as containerd gives them; empty for none. */
export interface StandardStreams {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** Most output asked of the guest in one call: what a pipe holds. */
const readBytes = 64 * 1024;
/** Most input given to the guest in one call. */
const writeBytes = 64 * 1024;
/** After SIGKILL, output that nobody reads is dropped so that the exit can be told. */
const drainMs = 10_000;

/** One process in the guest: a container's first, or one that was added by exec. */
export class GuestProcess {
  readonly containerId: string;
  /** Empty for the container's first process, the convention of Kata's current shim. */
  readonly execId: string;
  readonly streams: StandardStreams;
  /** Resolves when the process has ended and its output was handed over; never rejects. */
  readonly exited: Promise<Exit>;
  status: Status = Status.CREATED;
  exit: Exit | undefined;
  readonly #guest: GuestConnection;
  readonly #log: Logger;
  #resolveExit: (exit: Exit) => void = () => undefined;
  #input: InputSource | undefined;
  #closeInputEarly = false;
  #outputs: OutputSink[] = [];
  /** The status the guest gave, while its consequences (a pod that stops) are still under way. */
  #reported: number | undefined;
  #size: { readonly row: number; readonly column: number } | undefined;

  constructor(containerId: string, execId: string, streams: StandardStreams, guest: GuestConnection, log: Logger) {
    this.containerId = containerId;
    this.execId = execId;
    this.streams = streams;
    this.#guest = guest;
    this.#log = log;
    this.exited = new Promise((resolve) => {
      this.#resolveExit = resolve;
    });
  }

  get #key(): { containerId: string; execId: string } {
    return { containerId: this.containerId, execId: this.execId };
  }

  /**
   * Starts the process by `begin` and serves it until it ends: standard streams, terminal size, exit status.
   * `silent` (the pause process) has no output to read. `ending` runs after the exit, before anybody is told of it.
   */
  async start(
    begin: () => Promise<unknown>,
    options: { readonly silent?: boolean; readonly ending?: () => Promise<void> } = {},
  ): Promise<void> {
    // All streams are opened before the process runs: one that cannot be opened must not leave a process behind.
    const stdout = openOutput(this.streams.stdout);
    this.#outputs = [stdout];
    try {
      if (!this.streams.terminal) this.#outputs.push(openOutput(this.streams.stderr));
      if (this.streams.stdin !== '') this.#input = openInput(this.streams.stdin);
      await begin();
    } catch (thrown) {
      this.#destroyStreams();
      throw thrown;
    }
    // The machine may have died while the call was answered.
    if (this.exit !== undefined) return;
    this.status = Status.RUNNING;
    if (this.#size !== undefined) {
      // The process runs: a size that was not taken must not make it one that nobody serves.
      await this.#sendSize(this.#size).catch((error) => this.#log.info('cannot resize', { ...this.#key, error }));
    }
    if (this.#closeInputEarly) this.#input?.closeWriter();
    void this.#serve(options.silent ?? false, options.ending);
  }

  /** Remembers the size of the terminal; tells the guest at once if the process runs. */
  async resize(row: number, column: number): Promise<void> {
    // Clients without a terminal send zeros.
    if (row === 0 || column === 0) return;
    this.#size = { row, column };
    if (this.status === Status.RUNNING) await this.#sendSize(this.#size);
  }

  /** CloseIO: what was written to standard input still reaches the process, then its end. */
  closeInput(): void {
    this.#closeInputEarly = true;
    this.#input?.closeWriter();
  }

  async signal(signal: number): Promise<void> {
    await this.#guest.call((agent) => agent.signalProcess({ ...this.#key, signal }));
    if (signal !== 9) return;
    setTimeout(() => {
      for (const output of this.#outputs) output.destroy();
    }, drainMs).unref();
  }

  /** Marks the process as ended, once: by its own exit, or because the machine is gone. */
  finish(status: number): void {
    if (this.exit !== undefined) return;
    this.exit = { status: this.#reported ?? status, at: new Date() };
    this.status = Status.STOPPED;
    this.#destroyStreams();
    this.#resolveExit(this.exit);
  }

  #destroyStreams(): void {
    this.#input?.destroy();
    for (const output of this.#outputs) output.destroy();
  }

  async #sendSize(size: { readonly row: number; readonly column: number }): Promise<void> {
    try {
      await this.#guest.call((agent) => agent.ttyWinResize({ ...this.#key, ...size }));
    } catch (thrown) {
      // A process that has just ended has no terminal.
      if (!isNotFound(thrown)) throw thrown;
    }
  }

  async #serve(silent: boolean, ending: (() => Promise<void>) | undefined): Promise<void> {
    const input = this.#copyInput();
    input.catch((error) => this.#inputFailed(error));
    try {
      if (!silent) await Promise.all(this.#outputs.map((sink, index) => this.#copyOutput(sink, index === 1)));
      // Only now: waiting makes an agent forget the process, and with it output that was not read yet.
      const { status } = await this.#guest.waitCall((agent) => agent.waitProcess(this.#key));
      this.#reported = status;
      await ending?.();
      // The reader sees the end of the output before it learns of the exit.
      await Promise.all(this.#outputs.map((sink) => sink.close()));
      this.finish(status);
    } catch (thrown) {
      this.#log.info('lost a process', { ...this.#key, error: thrown });
      // 255 is the runtime's "unknown"; 137 is what a machine that died reports.
      this.finish(isNotFound(thrown) ? 255 : 137);
    }
  }

  async #copyOutput(sink: OutputSink, isError: boolean): Promise<void> {
    const request = { ...this.#key, len: readBytes };
    let target = sink;
    let offset = 0;
    for (;;) {
      let data: Uint8Array;
      try {
        const answer = await this.#guest.streamCall(offset, true, (agent, options) =>
          isError ? agent.readStderr(request, options) : agent.readStdout(request, options),
        );
        data = answer.data;
        offset += data.length;
      } catch (thrown) {
        // Agents say that a stream has ended with an error or with no data.
        this.#log.debug('output ended', { ...this.#key, error: thrown });
        return;
      }
      if (data.length === 0) return;
      try {
        await target.write(data);
      } catch (thrown) {
        // The reader is gone. The process must be read all the same, or it would block.
        this.#log.info('nobody reads the output', { ...this.#key, error: thrown });
        target = nullSink();
      }
    }
  }

  async #copyInput(): Promise<void> {
    if (this.#input === undefined) return;
    let sent = 0;
    for await (const chunk of this.#input.data) {
      for (let offset = 0; offset < chunk.length; ) {
        const data = chunk.subarray(offset, offset + writeBytes);
        const { len } = await this.#guest.streamCall(sent, false, (agent, options) =>
          agent.writeStdin({ ...this.#key, data }, options),
        );
        // An agent that does not count takes it all.
        const taken = len === 0 ? data.length : len;
        offset += taken;
        sent += taken;
      }
    }
    if (this.exit === undefined) await this.#guest.waitCall((agent) => agent.closeStdin(this.#key));
  }

  /**
   * A process that was left without the rest of its input would wait for it for ever, or take what it has for all. One
   * that was added by exec is ended, and its user told; a container's first goes on with its input ended.
   */
  async #inputFailed(error: unknown): Promise<void> {
    this.#log.info('standard input ended early', { ...this.#key, error });
    if (this.exit !== undefined || !isConnectionLoss(error)) return;
    try {
      if (this.execId === '') {
        await this.#guest.waitCall((agent) => agent.closeStdin(this.#key));
        return;
      }
      const words = 'sealpod: the connection to the guest was lost while input was sent; the command was ended\r\n';
      await this.#outputs.at(-1)?.write(Buffer.from(words));
      await this.#guest.waitCall((agent) => agent.signalProcess({ ...this.#key, signal: 9 }));
    } catch (failure) {
      this.#log.info('cannot end a process without its input', { ...this.#key, error: failure });
    }
  }
}
