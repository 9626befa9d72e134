import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, createSecureContext } from 'node:tls';
import { type ChannelIdentity, channelTls, keyDigest } from '@sealpod/protocol/agent-channel';
import { SealpodError } from '@sealpod/protocol/errors';
import { Status, TtrpcConnection, TtrpcError, toTtrpcError } from '@sealpod/protocol/ttrpc';

/** How long a channel has to be silent before a handshake that follows a broken one: doubled each time. */
const quietMs = { first: 200, longest: 6400 };

/**
 * TLS to one guest over the byte stream of its agent channel. The key that the guest shows first is pinned: another one
 * is refused for the life of the machine. Whose key it is has to be proved once, see `proveGuest` of the adaptor.
 */
export class SecureDial {
  readonly #identity: ChannelIdentity;
  #guestKey: string | undefined;
  /** What the guest answered to a connection that is gone comes to the next one: it has to be read away first. */
  #quietMs: number;

  /** `guestKey`: what an earlier process has pinned. */
  constructor(identity: ChannelIdentity, guestKey?: string) {
    this.#identity = identity;
    this.#guestKey = guestKey;
    this.#quietMs = guestKey === undefined ? 0 : quietMs.first;
  }

  /** Digest of the guest's key; undefined before the first connection. */
  get guestKey(): string | undefined {
    return this.#guestKey;
  }

  /** Connects and compares keys. Throws `unavailable`; with EV_BINDING_MISMATCH for another key. */
  async connect(socketPath: string, timeoutMs: number): Promise<TtrpcConnection> {
    const { privateKey: key, certificate: cert } = this.#identity;
    const stream = connect({ path: socketPath });
    if (this.#quietMs > 0) await silence(stream, this.#quietMs);
    this.#quietMs = Math.min(Math.max(quietMs.first, this.#quietMs * 2), quietMs.longest);
    const secureContext = createSecureContext({ ...channelTls, key, cert });
    // Certificates are self-signed; the key is compared below, before a byte is sent.
    const socket = connectTls({ socket: stream, secureContext, rejectUnauthorized: false });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(() => reject(new Error(`no TLS within ${timeoutMs} ms`)), timeoutMs);
    const onClose = () => reject(new Error('the connection ended'));
    socket.once('secureConnect', resolve);
    socket.once('error', reject).once('close', onClose);
    stream.once('error', reject).once('close', onClose);
    try {
      await promise;
      const certificate = socket.getPeerX509Certificate();
      if (certificate === undefined) throw new Error('the guest showed no certificate');
      const shown = keyDigest(certificate.publicKey);
      this.#guestKey ??= shown;
      if (shown !== this.#guestKey) {
        throw new SealpodError('EV_BINDING_MISMATCH', 'another machine answers on the agent channel', {
          expected: this.#guestKey,
          actual: shown,
        });
      }
      this.#quietMs = quietMs.first;
      return new TtrpcConnection(socket);
    } catch (cause) {
      socket.destroy();
      stream.destroy();
      if (cause instanceof SealpodError) throw toTtrpcError(cause);
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new TtrpcError(Status.unavailable, `cannot connect to ${socketPath}: ${reason}`, { cause });
    } finally {
      clearTimeout(timer);
      socket.off('secureConnect', resolve).off('error', reject).off('close', onClose);
      stream.off('error', reject).off('close', onClose);
    }
  }
}

/** Reads away what comes, until nothing has come for so long. A stream that fails does so again for who uses it. */
async function silence(stream: Socket, ms: number): Promise<void> {
  let last = performance.now();
  const onData = () => {
    last = performance.now();
  };
  const ignore = () => undefined;
  stream.on('data', onData).on('error', ignore);
  while (!stream.destroyed && performance.now() - last < ms) await sleep(Math.min(ms, 50));
  stream.off('data', onData).off('error', ignore).pause();
}
