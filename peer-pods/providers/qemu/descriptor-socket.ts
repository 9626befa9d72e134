import { Socket } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';

/** unix(7), socket(2), cmsg(3) of Linux on x86-64 and aarch64. */
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const maxPathBytes = 107;
/** struct cmsghdr (size_t, int, int) and one int, padded to the alignment of size_t. */
const controlBytes = 24;
const controlLength = 20;

/** What is called of the C library. */
interface SystemCalls {
  readonly socket: (domain: number, type: number, protocol: number) => number;
  readonly connect: (descriptor: number, address: Buffer, length: number) => number;
  readonly close: (descriptor: number) => number;
  readonly sendmsg: (descriptor: number, message: object, flags: number) => number;
  readonly errno: () => number;
}

let systemCalls: Promise<SystemCalls> | undefined;

/** Loaded with the first volume: an adaptor without volumes does not need the native library. */
async function loadSystemCalls(): Promise<SystemCalls> {
  const { default: koffi } = await import('koffi').catch((cause: unknown) => {
    throw new SealpodError(
      'PREREQUISITE',
      'the library that calls sendmsg(2) is missing, so no volume can be attached',
      {
        fix: 'install the npm package koffi with its optional package for this platform',
        cause,
      },
    );
  });
  const libc = koffi.load(null);
  koffi.struct('sealpod_iovec', { base: 'void *', length: 'size_t' });
  koffi.struct('sealpod_msghdr', {
    name: 'void *',
    nameLength: 'uint32_t',
    vectors: 'sealpod_iovec *',
    vectorCount: 'size_t',
    control: 'void *',
    controlLength: 'size_t',
    flags: 'int',
  });
  return {
    socket: libc.func('int socket(int, int, int)'),
    connect: libc.func('int connect(int, const void *, unsigned int)'),
    close: libc.func('int close(int)'),
    sendmsg: libc.func('long sendmsg(int, const sealpod_msghdr *, int)'),
    errno: () => koffi.errno(),
  };
}

/**
 * A client's end of a unix socket that can hand over open files (SCM_RIGHTS of unix(7)), which Node's own sockets cannot.
 * Reading, and writing without a file, is that of `socket`.
 */
export class DescriptorSocket {
  readonly socket: Socket;
  readonly #descriptor: number;

  readonly #calls: SystemCalls;

  private constructor(descriptor: number, calls: SystemCalls) {
    this.#descriptor = descriptor;
    this.#calls = calls;
    this.socket = new Socket({ fd: descriptor, readable: true, writable: true });
  }

  /** @throws SealpodError HYPERVISOR where nobody listens at the path, or it is too long; PREREQUISITE without the library. */
  static async connect(path: string): Promise<DescriptorSocket> {
    systemCalls ??= loadSystemCalls();
    const calls = await systemCalls;
    const bytes = Buffer.from(path);
    if (bytes.length > maxPathBytes) throw failed(`the path ${path} is too long for a unix socket`);
    const address = Buffer.alloc(2 + maxPathBytes + 1);
    address.writeUInt16LE(AF_UNIX, 0);
    bytes.copy(address, 2);
    const descriptor = Number(calls.socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (descriptor < 0) throw failed('no unix socket can be made');
    if (Number(calls.connect(descriptor, address, address.length)) !== 0) {
      const reason = calls.errno();
      calls.close(descriptor);
      throw failed(`${path} does not accept a connection (errno ${reason})`);
    }
    return new DescriptorSocket(descriptor, calls);
  }

  /**
   * Sends a short text and an open file with it. Call it when nothing that was written before is waiting.
   *
   * @throws SealpodError HYPERVISOR where it cannot be sent as a whole at once.
   */
  sendWithDescriptor(text: string, file: number): void {
    const data = Buffer.from(text);
    const control = Buffer.alloc(controlBytes);
    control.writeBigUInt64LE(BigInt(controlLength), 0);
    control.writeInt32LE(SOL_SOCKET, 8);
    control.writeInt32LE(SCM_RIGHTS, 12);
    control.writeInt32LE(file, 16);
    const message = {
      name: null,
      nameLength: 0,
      vectors: [{ base: data, length: data.length }],
      vectorCount: 1,
      control,
      controlLength: controlBytes,
      flags: 0,
    };
    const sent = Number(this.#calls.sendmsg(this.#descriptor, message, MSG_NOSIGNAL));
    if (sent !== data.length) throw failed(`an open file could not be handed over (errno ${this.#calls.errno()})`);
  }

  close(): void {
    this.socket.destroy();
  }
}

function failed(message: string): SealpodError {
  return new SealpodError('HYPERVISOR', message);
}
