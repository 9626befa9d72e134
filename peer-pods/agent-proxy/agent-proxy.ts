import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { GuestChannel, type GuestChannelOptions } from './guest-channel.ts';

/**
 * Relays ttrpc between any number of clients on a unix socket and the one byte stream to a guest. Requests get new
 * stream ids there; payloads, metadata, deadlines and failures pass untouched. The agent's API is unary throughout,
 * so streams are not relayed.
 */
export class AgentProxy {
  /** The channel itself, for what the adaptor has to ask the guest. */
  readonly guest: GuestChannel;
  readonly #server = new TtrpcServer();

  constructor(guest: GuestChannelOptions) {
    this.guest = new GuestChannel(guest);
    this.#server.setFallback((service, method, payload, { timeoutMs, signal, metadata }) =>
      this.guest.call(service, method, payload, { timeoutMs, signal, metadata }),
    );
  }

  /** Serves on a unix socket, mode 0600; its directory should be 0700. Throws where somebody serves it already. */
  async listen(socketPath: string): Promise<void> {
    await this.#server.listen(socketPath, { mode: 0o600 });
  }

  /** Ends both sides and removes the socket. */
  async close(): Promise<void> {
    this.guest.close();
    await this.#server.close();
  }
}
