import { SealpodError } from '@sealpod/protocol/errors';
import { DescriptorSocket } from './descriptor-socket.ts';

const answerTimeoutMs = 20_000;
const maxBufferedBytes = 1 << 20;

/** A line from QEMU: an answer, a failure, or an event (QEMU Machine Protocol). */
interface Message {
  readonly return?: unknown;
  readonly error?: { readonly class?: string; readonly desc?: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** QEMU refused a command. */
export class QmpRefusal extends SealpodError {
  /** QEMU's own class of it, e.g. `DeviceNotFound`. */
  readonly errorClass: string;

  constructor(command: string, error: NonNullable<Message['error']>) {
    super('HYPERVISOR', `QEMU refuses ${command}: ${String(error.desc).slice(0, 500)}`);
    this.errorClass = String(error.class);
  }
}

/**
 * A conversation with a machine's QEMU, one command at a time. What QEMU says is bounded and waited for only so long: a
 * guest may have taken it over.
 */
export class QmpSession {
  readonly #connection: DescriptorSocket;
  readonly #messages: Message[] = [];
  #received = '';
  #failure: SealpodError | undefined;
  #wake: (() => void) | undefined;

  private constructor(connection: DescriptorSocket) {
    this.#connection = connection;
    const { socket } = connection;
    const fail = (message: string): void => {
      this.#failure ??= new SealpodError('HYPERVISOR', message);
      this.#wake?.();
    };
    socket.on('error', (error) => fail(`the control socket of the machine failed: ${error.message}`));
    socket.on('close', () => fail('the machine closed its control socket'));
    socket.on('data', (chunk: Buffer) => {
      this.#received += chunk.toString('utf8');
      const lines = this.#received.split('\n');
      this.#received = lines.pop() ?? '';
      for (const line of lines) this.#messages.push(parse(line));
      if (this.#received.length + this.#messages.length > maxBufferedBytes) {
        fail('the machine says too much');
        socket.destroy();
      }
      this.#wake?.();
    });
  }

  /** Connects, and runs `work` in a session that is closed afterwards. @throws SealpodError HYPERVISOR */
  static async use<T>(path: string, work: (session: QmpSession) => Promise<T>): Promise<T> {
    const connection = await DescriptorSocket.connect(path);
    try {
      const session = new QmpSession(connection);
      await session.execute('qmp_capabilities');
      return await work(session);
    } finally {
      connection.close();
    }
  }

  /** Runs a command. @throws QmpRefusal where QEMU refuses, SealpodError HYPERVISOR where it does not answer */
  async execute(command: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    this.#connection.socket.write(line(command, parameters));
    return this.#answer(command);
  }

  /** As `execute`, with an open file. */
  async executeWithFile(
    command: string,
    parameters: Readonly<Record<string, unknown>>,
    file: number,
  ): Promise<unknown> {
    this.#connection.sendWithDescriptor(line(command, parameters), file);
    return this.#answer(command);
  }

  /** Waits for an event whose data fit; events that came before the call count. @throws SealpodError HYPERVISOR when it is late */
  async event(name: string, fits: (data: Readonly<Record<string, unknown>>) => boolean): Promise<void> {
    await this.#take(`event ${name}`, (message) => message.event === name && fits(message.data ?? {}));
  }

  async #answer(command: string): Promise<unknown> {
    const message = await this.#take(command, ({ event, return: answer, error }) => {
      return event === undefined && (answer !== undefined || error !== undefined);
    });
    if (message.error !== undefined) throw new QmpRefusal(command, message.error);
    return message.return;
  }

  async #take(what: string, fits: (message: Message) => boolean): Promise<Message> {
    const deadline = Date.now() + answerTimeoutMs;
    for (;;) {
      const index = this.#messages.findIndex(fits);
      const [found] = index < 0 ? [] : this.#messages.splice(index, 1);
      if (found !== undefined) return found;
      if (this.#failure !== undefined) throw this.#failure;
      const left = deadline - Date.now();
      if (left <= 0) throw new SealpodError('HYPERVISOR', `the machine does not answer ${what} in time`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

function line(command: string, parameters: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify({ execute: command, arguments: parameters })}\n`;
}

function parse(text: string): Message {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Falls through: QEMU never says such a thing.
  }
  throw new SealpodError('HYPERVISOR', 'the control socket of the machine does not speak QMP');
}
