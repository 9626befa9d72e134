import { listenOnSocket, type SocketListener, Status, TtrpcError } from '@sealpod/protocol/ttrpc';
import { GuestChannel, type GuestChannelOptions } from './guest-channel.ts';
import { RelayedClient } from './relayed-client.ts';

/** Relays ttrpc between any number of clients on a unix socket and the one byte stream to a guest. */
export class AgentProxy {
  /** The channel itself, for what the adaptor has to ask the guest. */
  readonly guest: GuestChannel;
  readonly #clients = new Set<RelayedClient>();
  #listener: SocketListener | undefined;
  #unusedSince = performance.now();

  constructor(guest: GuestChannelOptions) {
    this.guest = new GuestChannel(guest);
  }

  /** Serves on a unix socket, mode 0600; its directory should be 0700. Throws where somebody serves it already. */
  async listen(socketPath: string): Promise<void> {
    if (this.#listener) throw new TtrpcError(Status.failedPrecondition, 'the agent is served already');
    this.#listener = await listenOnSocket(socketPath, 0o600, (socket) => {
      const client = new RelayedClient(socket, this.guest);
      this.#clients.add(client);
      void client.closed.then(() => {
        this.#clients.delete(client);
        this.#unusedSince = performance.now();
      });
    });
  }

  /** For how long no client has been connected, in milliseconds; 0 while one is. */
  get unusedMs(): number {
    return this.#clients.size > 0 ? 0 : performance.now() - this.#unusedSince;
  }

  /** Ends both sides and removes the socket. */
  async close(): Promise<void> {
    this.guest.close();
    const stopped = this.#listener?.close();
    this.#listener = undefined;
    const clients = [...this.#clients];
    for (const client of clients) client.destroy();
    await Promise.all([stopped, ...clients.map((client) => client.closed)]);
  }
}
