/**
 * ttrpc, client and server, over any byte stream: unary and streaming calls, deadlines, cancellation, message limits.
 *
 * @module
 */
export { type Client, createClient } from './client.ts';
export { type CallOptions, type RawStream, type StreamShape, TtrpcConnection } from './connection.ts';
export { maxMessageBytes } from './frame.ts';
export { TtrpcServer, type TtrpcServerOptions } from './server.ts';
export type { RawHandler, RequestContext, ServiceImplementation } from './service.ts';
export { Status, TtrpcError } from './status.ts';
