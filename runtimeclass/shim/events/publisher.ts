import { create, type DescMessage, type MessageInitShape } from '@bufbuild/protobuf';
import { anyPack, timestampNow } from '@bufbuild/protobuf/wkt';
import { Events } from '@sealpod/protocol/gen/containerd/events_ttrpc_pb';
import { createClient, TtrpcConnection } from '@sealpod/protocol/ttrpc';
import type { Logger } from '../log.ts';

interface QueuedEvent {
  readonly topic: string;
  readonly send: (connection: TtrpcConnection) => Promise<unknown>;
  attempts: number;
}

const attempts = 5;
const timeoutMs = 5000;

/**
 * Publishes task events to containerd, in the order given, through one connection that is made again after containerd's
 * restart. No caller ever waits for it: while containerd is away, its own calls to us would hang with it.
 */
export class EventPublisher {
  readonly #address: string;
  readonly #namespace: string;
  readonly #log: Logger;
  readonly #queue: QueuedEvent[] = [];
  readonly #retryMs: number;
  #connection: TtrpcConnection | undefined;
  #pumping: Promise<void> | undefined;

  /** `address` is containerd's `TTRPC_ADDRESS`; empty (CRI-O) means nobody listens and events are only logged. */
  constructor(address: string, namespace: string, log: Logger, retryMs = 1000) {
    this.#address = address.replace(/^unix:\/\//, '');
    this.#namespace = namespace;
    this.#log = log;
    this.#retryMs = retryMs;
  }

  /** Queues one event, e.g. `publish('/tasks/start', TaskStartSchema, {containerId, pid})`. */
  publish<D extends DescMessage>(topic: string, schema: D, event: MessageInitShape<D>): void {
    this.#log.debug('event', { topic });
    if (this.#address === '') return;
    const packed = anyPack(schema, create(schema, event));
    // containerd finds the type by its bare name, without the usual host part.
    packed.typeUrl = schema.typeName;
    const envelope = { timestamp: timestampNow(), namespace: this.#namespace, topic, event: packed };
    this.#queue.push({
      topic,
      attempts: 0,
      send: (connection) => createClient(Events, connection).forward({ envelope }, { timeoutMs }),
    });
    this.#pumping ??= this.#pump().finally(() => {
      this.#pumping = undefined;
    });
  }

  /** Resolves when nothing is queued any more, or after `withinMs`. */
  async flush(withinMs: number): Promise<void> {
    const late = new Promise<void>((resolve) => setTimeout(resolve, withinMs).unref());
    await Promise.race([this.#pumping, late]);
  }

  close(): void {
    this.#connection?.close();
  }

  async #connect(): Promise<TtrpcConnection> {
    if (this.#connection !== undefined) return this.#connection;
    const connection = await TtrpcConnection.connect(this.#address, { timeoutMs });
    this.#connection = connection;
    void connection.closed.then(() => {
      if (this.#connection === connection) this.#connection = undefined;
    });
    return connection;
  }

  async #pump(): Promise<void> {
    for (let event = this.#queue[0]; event !== undefined; event = this.#queue[0]) {
      try {
        await event.send(await this.#connect());
        this.#queue.shift();
      } catch (cause) {
        event.attempts += 1;
        this.#log.info('cannot publish event', { topic: event.topic, attempt: event.attempts, error: cause });
        if (event.attempts >= attempts) this.#queue.shift();
        else await new Promise((resolve) => setTimeout(resolve, this.#retryMs));
      }
    }
  }
}
