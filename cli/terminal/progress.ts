/** Reports the steps of a longer task on stderr, each with its duration, in the order they end. */
export class Progress {
  readonly #start = performance.now();
  readonly #durations: { readonly step: string; readonly milliseconds: number }[] = [];

  /** Runs one step and prints what it was and how long it took. A failure is printed and passed on. */
  async step<T>(name: string, run: () => Promise<T> | T, note?: (result: T) => string): Promise<T> {
    const start = performance.now();
    try {
      const result = await run();
      const milliseconds = Math.round(performance.now() - start);
      this.#durations.push({ step: name, milliseconds });
      const text = note?.(result);
      this.#print('ok', name, milliseconds, text);
      return result;
    } catch (error) {
      this.#print('failed', name, Math.round(performance.now() - start));
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
    const duration = `${(milliseconds / 1000).toFixed(1)} s`.padStart(7);
    process.stderr.write(`${state.padEnd(6)} ${duration}  ${name}${note === undefined ? '' : `: ${note}`}\n`);
  }
}
