/**
 * Frames of ttrpc: a header of ten bytes (u32 length, u32 stream id, u8 type, u8 flags; big endian) and a payload.
 * Source: PROTOCOL.md of containerd/ttrpc; recorded exchanges of the Rust implementation.
 *
 * @module
 */

/** The longest payload of a frame, 4 MiB; a peer refuses more. */
export const maxMessageBytes = 4 * 1024 * 1024;

const headerBytes = 10;

export const MessageType = { request: 1, response: 2, data: 3 } as const;

export const Flag = { remoteClosed: 0x01, remoteOpen: 0x02, noData: 0x04 } as const;

export interface FrameHeader {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
}

/** A complete frame. `payload` is undefined where it was longer than allowed and has been skipped: `length` tells. */
export interface Frame extends FrameHeader {
  readonly length: number;
  readonly payload: Uint8Array | undefined;
}

/** The ten header bytes for a payload of `length` bytes. */
export function encodeHeader(header: FrameHeader, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(headerBytes);
  bytes.writeUInt32BE(length, 0);
  bytes.writeUInt32BE(header.streamId, 4);
  bytes.writeUInt8(header.type, 8);
  bytes.writeUInt8(header.flags, 9);
  return bytes;
}

/**
 * Cuts a byte stream into frames, however it arrives. A payload longer than the limit is skipped as it comes, so it
 * costs no memory and the stream stays in step; its frame is given once all of it has passed.
 */
export class FrameDecoder {
  readonly #limit: number;
  readonly #header = Buffer.alloc(headerBytes);
  #headerFilled = 0;
  #payload: Buffer | undefined;
  #length = 0;
  #filled = 0;

  constructor(limit = maxMessageBytes) {
    this.#limit = limit;
  }

  /** The frames that `chunk` completes. Consume them all before the next chunk. */
  *push(chunk: Uint8Array): Generator<Frame> {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (;;) {
      if (this.#headerFilled < headerBytes) {
        if (rest.length === 0) return;
        rest = rest.subarray(this.#takeHeader(rest));
        if (this.#headerFilled < headerBytes) return;
      }
      const missing = this.#length - this.#filled;
      if (missing > rest.length) {
        this.#payload ??= this.#length <= this.#limit ? Buffer.allocUnsafe(this.#length) : undefined;
        this.#payload?.set(rest, this.#filled);
        this.#filled += rest.length;
        return;
      }
      yield this.#finish(rest.subarray(0, missing));
      rest = rest.subarray(missing);
    }
  }

  #takeHeader(bytes: Buffer): number {
    const taken = bytes.copy(this.#header, this.#headerFilled, 0, headerBytes - this.#headerFilled);
    this.#headerFilled += taken;
    if (this.#headerFilled === headerBytes) this.#length = this.#header.readUInt32BE(0);
    return taken;
  }

  #finish(last: Buffer): Frame {
    let payload: Buffer | undefined = last;
    if (this.#length > this.#limit) payload = undefined;
    else if (this.#payload) {
      this.#payload.set(last, this.#filled);
      payload = this.#payload;
    }
    const frame = {
      streamId: this.#header.readUInt32BE(4),
      type: this.#header.readUInt8(8),
      flags: this.#header.readUInt8(9),
      length: this.#length,
      payload,
    };
    this.#headerFilled = 0;
    this.#filled = 0;
    this.#payload = undefined;
    return frame;
  }
}
