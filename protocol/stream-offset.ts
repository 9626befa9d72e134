/**
 * How a call that moves bytes of a process' stream can be repeated after a lost connection, which Kata's agent API leaves
 * open: the request's metadata say at which byte of the stream it begins. A read that was answered already is answered
 * the same again, and of a write only what was not taken before is taken. Agents that do not know it ignore metadata.
 *
 * @module
 */
import { SealpodError } from './errors.ts';

/** In `AgentDetails.extra_features` of an agent that heeds {@link streamOffsetKey}. */
export const streamOffsetFeature = 'sealpod-stream-offset';

/** Key in the metadata of ReadStdout, ReadStderr and WriteStdin: bytes of this stream before the call, decimal. */
export const streamOffsetKey = 'sealpod-stream-offset';

/** The offset of a request; undefined where it has none. @throws SealpodError REQUEST_FORMAT where it is no number */
export function streamOffset(metadata: Readonly<Record<string, readonly string[]>>): number | undefined {
  const values = metadata[streamOffsetKey];
  if (values === undefined) return undefined;
  const offset = values.length === 1 && /^\d{1,15}$/.test(values[0] ?? '') ? Number(values[0]) : Number.NaN;
  if (Number.isSafeInteger(offset)) return offset;
  throw new SealpodError('REQUEST_FORMAT', 'the offset of the stream is not a number of bytes');
}
