/**
 * ttrpc, client and server, over any byte stream: unary and streaming calls, deadlines, cancellation, message limits.
 *
 * @module
 */
export { FrameChannel } from './channel.ts';
export { type Client, createClient } from './client.ts';
export {
  type CallOptions,
  type RawStream,
  type RelayedCall,
  type RelayedRequest,
  type StreamShape,
  TtrpcConnection,
} from './connection.ts';
export { encodeErrorResponse, requestTimeoutMs, tooLong, withTimeout } from './envelope.ts';
export { Flag, type Frame, MessageType, maxMessageBytes } from './frame.ts';
export { listenOnSocket, type SocketListener } from './listener.ts';
export { TtrpcServer, type TtrpcServerOptions } from './server.ts';
export type { RawHandler, RequestContext, ServiceImplementation } from './service.ts';
export { Status, TtrpcError, toTtrpcError } from './status.ts';
