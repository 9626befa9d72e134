/** Reports the steps of a longer task on stderr, each with its duration, in the order they end. */
export class Progress {
  readonly #start = performance.now();
  readonly #signal: AbortSignal | undefined;
  readonly #durations: { readonly step: string; readonly milliseconds: number }[] = [];

  /** @param signal once aborted, no further step begins, and those under way end without a word */
  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Whether the task was told to end early. */
  get interrupted(): boolean {
    return this.#signal?.aborted === true;
  }

  /**
   * Runs one step and prints what it was and how long it took. A failure is printed and passed on.
   *
   * @throws the reason of the abortion, where the task was interrupted before the step
   */
  step<T>(name: string, run: () => Promise<T> | T, note?: (result: T) => string): Promise<T> {
    return this.#step(name, run, 'failed', note);
  }

  /** As `step`, for one that is expected to be refused. */
  refusable<T>(name: string, run: () => Promise<T> | T): Promise<T> {
    return this.#step(name, run, 'refused');
  }

  async #step<T>(name: string, run: () => Promise<T> | T, failure: string, note?: (result: T) => string): Promise<T> {
    this.#signal?.throwIfAborted();
    const start = performance.now();
    try {
      const result = await run();
      const milliseconds = Math.round(performance.now() - start);
      this.#durations.push({ step: name, milliseconds });
      const text = note?.(result);
      this.#print('ok', name, milliseconds, text);
      return result;
    } catch (error) {
      this.#print(failure, name, Math.round(performance.now() - start));
      throw error;
    }
  }

  /** Prints a line between steps. */
  say(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  /** Milliseconds since the task began. */
  get elapsed(): number {
    return Math.round(performance.now() - this.#start);
  }

  /** Steps so far with their durations in milliseconds. */
  get durations(): readonly { readonly step: string; readonly milliseconds: number }[] {
    return this.#durations;
  }

  #print(state: string, name: string, milliseconds: number, note?: string): void {
    if (this.interrupted) return;
    const duration = `${(milliseconds / 1000).toFixed(1)} s`.padStart(7);
    process.stderr.write(`${state.padEnd(7)} ${duration}  ${name}${note === undefined ? '' : `: ${note}`}\n`);
  }
}
