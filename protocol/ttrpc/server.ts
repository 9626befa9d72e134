import type { Duplex } from 'node:stream';
import type { DescService } from '@bufbuild/protobuf';
import { listenOnSocket, type SocketListener } from './listener.ts';
import { ServerConnection } from './server-connection.ts';
import {
  type BoundMethod,
  bindMethod,
  bindRaw,
  type RawHandler,
  type RequestContext,
  type ServiceImplementation,
} from './service.ts';
import { Status, TtrpcError } from './status.ts';

export interface TtrpcServerOptions {
  /**
   * Status of a method that the service has and nobody implements. The default `notFound` is that of the Rust
   * implementation, which guests speak; a shim wants `unimplemented`, since containerd takes `notFound` for "already gone".
   */
  readonly missingMethodStatus?: typeof Status.notFound | typeof Status.unimplemented;
}

/** Serves ttrpc on any number of byte streams and at most one unix socket. */
export class TtrpcServer {
  readonly #options: TtrpcServerOptions;
  readonly #services = new Map<string, Map<string, BoundMethod | undefined>>();
  readonly #connections = new Set<ServerConnection>();
  #fallback: RawHandler | undefined;
  #listener: SocketListener | undefined;

  constructor(options: TtrpcServerOptions = {}) {
    this.#options = options;
  }

  /** Adds a service; methods without a handler are answered with `missingMethodStatus`. */
  addService<S extends DescService>(service: S, implementation: Partial<ServiceImplementation<S>>): this {
    const handlers = implementation as Record<
      string,
      ((request: unknown, context: RequestContext) => unknown) | undefined
    >;
    const methods = service.methods.map((method): [string, BoundMethod | undefined] => {
      const handler = handlers[method.localName];
      return [method.name, handler && bindMethod(method, handler.bind(implementation))];
    });
    this.#services.set(service.typeName, new Map(methods));
    return this;
  }

  /** Takes the calls of services that were not added, in bytes: a relay. */
  setFallback(handler: RawHandler): this {
    this.#fallback = handler;
    return this;
  }

  /** Serves one byte stream until either side closes it. */
  serve(stream: Duplex): void {
    const connection = new ServerConnection(stream, (service, method) => this.#lookup(service, method));
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
  }

  /**
   * Listens on a unix socket, created with `mode` (default 0600). A socket that nobody serves any more is removed first.
   * Throws `alreadyExists` where somebody serves it, or the path is no socket; else the system's error.
   */
  async listen(socketPath: string, options: { mode?: number } = {}): Promise<void> {
    if (this.#listener) throw new TtrpcError(Status.failedPrecondition, 'the server listens already');
    this.#listener = await listenOnSocket(socketPath, options.mode ?? 0o600, (socket) => this.serve(socket));
  }

  /** Stops listening, removes the socket and ends all connections; handlers see their signal aborted. */
  async close(): Promise<void> {
    const listener = this.#listener;
    this.#listener = undefined;
    const stopped = listener?.close();
    const connections = [...this.#connections];
    for (const connection of connections) connection.destroy();
    await Promise.all([stopped, ...connections.map((connection) => connection.closed)]);
  }

  #lookup(service: string, method: string): BoundMethod {
    const methods = this.#services.get(service);
    if (!methods) {
      if (this.#fallback) return bindRaw(service, method, this.#fallback);
      throw new TtrpcError(Status.invalidArgument, `${service} service does not exist`);
    }
    const bound = methods.get(method);
    if (bound) return bound;
    if (!methods.has(method)) throw new TtrpcError(Status.unimplemented, `${method} method`);
    const status = this.#options.missingMethodStatus ?? Status.notFound;
    throw new TtrpcError(status, `/${service}/${method} is not supported`);
  }
}
