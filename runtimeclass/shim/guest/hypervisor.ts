import { SealpodError } from '@sealpod/protocol/errors';
import { Hypervisor } from '@sealpod/protocol/gen/kata/hypervisor_pb';
import { type AttachVolumeResponse, Volumes } from '@sealpod/protocol/gen/sealpod/volumes_pb';
import { type Client, createClient, Status, TtrpcConnection, TtrpcError } from '@sealpod/protocol/ttrpc';

const dialMs = 5000;

/**
 * Calls the adaptor on a connection of its own, as upstream's shim does: the adaptor may be restarted between two calls.
 *
 * @throws SealpodError HYPERVISOR when the adaptor is not there; TtrpcError with the adaptor's own words when it refuses.
 */
async function call<T>(socketPath: string, run: (client: Client<typeof Hypervisor>) => Promise<T>): Promise<T> {
  return withConnection(socketPath, (connection) => run(createClient(Hypervisor, connection)));
}

async function withConnection<T>(socketPath: string, run: (connection: TtrpcConnection) => Promise<T>): Promise<T> {
  let connection: TtrpcConnection;
  try {
    connection = await TtrpcConnection.connect(socketPath, { timeoutMs: dialMs });
  } catch (cause) {
    throw new SealpodError('HYPERVISOR', `no adaptor answers on ${socketPath}`, {
      fix: 'start the cloud-api-adaptor (`sealpod up`), or set hypervisorSocket in the shim configuration',
      cause,
    });
  }
  try {
    return await run(connection);
  } finally {
    connection.close();
  }
}

/** Whether the adaptor does not know the machine: ours then answers with success, others with an error of their own. */
function noSuchMachine(thrown: unknown): boolean {
  if (!(thrown instanceof TtrpcError)) return false;
  return thrown.status === Status.notFound || /sandbox\b.*(not found|does not exist)/i.test(thrown.message);
}

/** Servers of Go say UNIMPLEMENTED to a service that they do not have, those of Rust and ours INVALID_ARGUMENT and its name. */
function isUnknownService(thrown: unknown): boolean {
  if (!(thrown instanceof TtrpcError)) return false;
  const isNamed = thrown.status === Status.invalidArgument && thrown.message.includes(Volumes.typeName);
  return thrown.status === Status.unimplemented || isNamed;
}

/** The machine of one pod, driven through the adaptor's `hypervisor.Hypervisor`. */
export class PodMachine {
  readonly id: string;
  readonly #socketPath: string;
  /** Whether the adaptor can know of the machine: nothing has to be stopped that was never asked for. */
  #asked: boolean;

  /** `asked` for a machine that another process has created. */
  constructor(id: string, socketPath: string, asked = false) {
    this.id = id;
    this.#socketPath = socketPath;
    this.#asked = asked;
  }

  /** Reserves the machine. Returns the unix socket on which its agent answers once it is started. */
  async create(annotations: Record<string, string>, networkNamespacePath: string, timeoutMs: number): Promise<string> {
    const { agentSocketPath } = await call(this.#socketPath, (client) => {
      this.#asked = true;
      return client.createVM({ id: this.id, annotations, networkNamespacePath }, { timeoutMs });
    });
    return agentSocketPath.replace(/^remote:\/\//, '');
  }

  /** Starts the machine and waits until its agent can be reached. */
  async start(timeoutMs: number): Promise<void> {
    await call(this.#socketPath, (client) => client.startVM({ id: this.id }, { timeoutMs }));
  }

  /** Stops the machine. One that the adaptor no longer knows is stopped. */
  async stop(timeoutMs: number): Promise<void> {
    if (!this.#asked) return;
    try {
      await call(this.#socketPath, (client) => client.stopVM({ id: this.id }, { timeoutMs }));
    } catch (thrown) {
      if (noSuchMachine(thrown)) return;
      throw thrown;
    }
  }

  /**
   * Plugs a block device of this host into the running machine.
   *
   * @throws SealpodError UNSUPPORTED where the adaptor is another program than ours, which has no such call
   */
  async attachVolume(
    volume: { readonly volumeId: string; readonly device: string; readonly readOnly: boolean },
    timeoutMs: number,
  ): Promise<AttachVolumeResponse> {
    try {
      return await withConnection(this.#socketPath, (connection) =>
        createClient(Volumes, connection).attachVolume({ sandboxId: this.id, ...volume }, { timeoutMs }),
      );
    } catch (thrown) {
      if (!isUnknownService(thrown)) throw thrown;
      throw new SealpodError('UNSUPPORTED', 'the adaptor of this node cannot attach volumes', {
        expected: 'the service sealpod.volumes.Volumes on its socket',
        fix: "run sealpod's adaptor, or the pod without persistent volumes",
        cause: thrown,
      });
    }
  }

  /** Whether the adaptor itself answers: a guest that does not answer while its adaptor does is gone. */
  async adaptorAnswers(): Promise<boolean> {
    try {
      await call(this.#socketPath, (client) => client.version({ version: '' }, { timeoutMs: dialMs }));
      return true;
    } catch (thrown) {
      // Even a refusal is an answer.
      return thrown instanceof TtrpcError;
    }
  }
}
