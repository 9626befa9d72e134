/** Work that several ask for at the same time and that is done once. */
export class SharedWork<Result> {
  readonly #running = new Map<
    string,
    { readonly result: Promise<Result>; readonly stop: AbortController; waiting: number }
  >();

  /**
   * Joins the running work of this key or starts it. A caller that gives up leaves; the work itself is stopped when the
   * last one has left.
   */
  async run(key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    signal.throwIfAborted();
    const running = this.#running.get(key) ?? this.#start(key, work);
    running.waiting += 1;
    const left = Promise.withResolvers<never>();
    const leave = (): void => {
      running.waiting -= 1;
      if (running.waiting === 0) {
        // Who comes now starts anew instead of joining work that is being stopped.
        if (this.#running.get(key) === running) this.#running.delete(key);
        running.stop.abort(signal.reason);
      }
      left.reject(signal.reason);
    };
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await Promise.race([running.result, left.promise]);
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<Result>) {
    const stop = new AbortController();
    const result = work(stop.signal);
    const running = { result, stop, waiting: 0 };
    this.#running.set(key, running);
    const forget = (): void => {
      if (this.#running.get(key) === running) this.#running.delete(key);
    };
    result.then(forget, forget);
    return running;
  }
}
