import type { Duplex } from 'node:stream';
import { createSecureContext, TLSSocket } from 'node:tls';
import { type ChannelIdentity, channelTls, keyDigest } from '@sealpod/protocol/agent-channel';
import type { Log } from './console-log.ts';

/** First byte of a TLS record that begins a handshake. A frame of ttrpc, of at most 4 MiB, begins with 0. */
const tlsHandshake = 0x16;
const handshakeMs = 30_000;

/**
 * Decides who may use the agent API. The first byte that ever comes decides whether it is served with TLS, from then on and
 * for good: what is left over from a handshake that was broken off must not pass for a peer without. With TLS, the first
 * peer is the only one; without (an adaptor of upstream's), peers cannot be told apart.
 */
export class AgentChannel {
  readonly #identity: ChannelIdentity;
  readonly #serve: (stream: Duplex) => void;
  readonly #log: Log;
  #transport: 'tls' | 'plain' | undefined;
  #pinned: string | undefined;

  constructor(identity: ChannelIdentity, serve: (stream: Duplex) => void, log: Log) {
    this.#identity = identity;
    this.#serve = serve;
    this.#log = log;
  }

  /** Takes a stream of the host's, whose first byte is known already. */
  accept(stream: Duplex, firstByte: number): void {
    const transport = firstByte === tlsHandshake ? 'tls' : 'plain';
    this.#transport ??= transport;
    if (transport !== this.#transport) {
      this.#log('error', 'the agent channel is for another peer', { expected: this.#transport, actual: transport });
      // What comes is thrown away until the host goes: a stream of rejects would fill the console.
      stream.resume();
    } else if (transport === 'tls') this.#handshake(stream);
    else this.#serve(stream);
  }

  #handshake(stream: Duplex): void {
    const { privateKey: key, certificate: cert } = this.#identity;
    const secureContext = createSecureContext({ ...channelTls, key, cert });
    const socket = new TLSSocket(stream as never, {
      isServer: true,
      secureContext,
      requestCert: true,
      // Certificates are self-signed; the key is compared below, before a byte is served.
      rejectUnauthorized: false,
    });
    const timer = setTimeout(() => socket.destroy(), handshakeMs);
    socket.on('error', (error) => this.#log('info', 'the agent channel failed', { error: error.message }));
    socket.once('close', () => {
      clearTimeout(timer);
      stream.destroy();
    });
    socket.once('secure', () => {
      clearTimeout(timer);
      const certificate = socket.getPeerX509Certificate();
      if (certificate !== undefined && this.#admits(keyDigest(certificate.publicKey))) this.#serve(socket);
      else socket.end();
    });
  }

  #admits(who: string): boolean {
    this.#pinned ??= who;
    if (this.#pinned === who) return true;
    this.#log('error', 'the agent channel is for another peer', { expected: this.#pinned, actual: who });
    return false;
  }
}
