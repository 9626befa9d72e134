/**
 * Our ttrpc against what the Rust implementation really sent and answered. The recordings are not part of the
 * repository: `SEALPOD_VECTORS` names their folder.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import { fromBinary } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { AttestationAgentService } from '../gen/coco/attestation_agent_pb.ts';
import { RequestSchema, ResponseSchema } from '../gen/ttrpc/envelope_pb.ts';
import { vectorPath } from '../testing/vectors.ts';
import { decodeRequest, decodeResponse, encodeErrorResponse, encodeRequest, encodeResponse } from './envelope.ts';
import { type Frame, FrameDecoder, MessageType } from './frame.ts';
import { TtrpcConnection, TtrpcError, TtrpcServer } from './index.ts';

const folder = vectorPath('recorded/ttrpc');
const present = existsSync(folder);

interface RecordedFrame {
  dir: 'client-to-server' | 'server-to-client';
  header: { length: number; stream_id: number; type: number; flags: number };
  request?: { service: string; method: string };
  response?: { status: { code: number; message: string } };
  undecodable?: string;
  hex: string;
}
interface Step {
  label: string;
  connections: { connection: number; frames: RecordedFrame[] }[];
}

const load = (file: string): { steps: Step[]; cases?: OversizeCase[] } =>
  JSON.parse(readFileSync(join(folder, file), 'utf8'));
const framesOf = (step: Step) => step.connections.flatMap((connection) => connection.frames);
const body = (frame: RecordedFrame) => Buffer.from(frame.hex, 'hex').subarray(10);

describe.skipIf(!present)(`recorded ttrpc exchanges${present ? '' : ` (skipped: ${folder} is absent)`}`, () => {
  const files = present ? readdirSync(folder).filter((file) => file.endsWith('.json')) : [];

  it('every frame is cut, decoded and encoded again to the same bytes', () => {
    let requests = 0;
    let responses = 0;
    for (const frame of files.flatMap((file) => load(file).steps.flatMap(framesOf))) {
      const [decoded] = new FrameDecoder().push(Buffer.from(frame.hex, 'hex'));
      expect(decoded).toMatchObject({
        streamId: frame.header.stream_id,
        type: frame.header.type,
        flags: frame.header.flags,
        length: frame.header.length,
      });
      if (frame.undecodable !== undefined) continue;
      if (frame.request && frame.header.type === MessageType.request) {
        const request = decodeRequest(body(frame));
        expect(request).toMatchObject({ service: frame.request.service, method: frame.request.method });
        // A timeout below a millisecond, or a negative one, has no counterpart here.
        if (fromBinary(RequestSchema, body(frame)).timeoutNano % 1_000_000n === 0n) {
          expect(Buffer.from(encodeRequest(request)).toString('hex')).toBe(body(frame).toString('hex'));
        }
        requests++;
      }
      if (frame.response) {
        const { status } = frame.response;
        const encoded =
          status.code === 0
            ? encodeResponse(decodeResponse(body(frame)))
            : encodeErrorResponse(new TtrpcError(status.code, status.message));
        expect(Buffer.from(encoded).toString('hex')).toBe(body(frame).toString('hex'));
        responses++;
      }
    }
    expect(requests).toBeGreaterThan(150);
    expect(responses).toBeGreaterThan(150);
  });

  it('our client gets from each recorded answer what the recording says', async () => {
    for (const frame of files
      .flatMap((file) => load(file).steps.flatMap(framesOf))
      .filter(({ response }) => response)) {
      const [ours, theirs] = duplexPair();
      const connection = new TtrpcConnection(ours);
      const call = connection.call('a.B', 'C', new Uint8Array()).then(
        () => ({ code: 0, message: '' }),
        ({ status, message }: TtrpcError) => ({ code: status, message }),
      );
      const bytes = Buffer.from(frame.hex, 'hex');
      bytes.writeUInt32BE(1, 4); // our call's stream
      theirs.write(bytes);
      expect(await call).toEqual(frame.response?.status);
      connection.close();
    }
  });

  it('our server answers each recorded framing case as the original did', async () => {
    for (const step of load('framing.json').steps) {
      const recorded = framesOf(step);
      const expected = recorded.filter(({ dir }) => dir === 'server-to-client');
      const sent = recorded.filter(({ dir }) => dir === 'client-to-server').map(({ hex }) => hex);
      const answers = await exchange(sent, expected.length);
      const sorted = (list: { streamId: number; code: number | undefined }[]) =>
        list.sort((a, b) => a.streamId - b.streamId);
      expect({ [step.label]: sorted(answers.map(({ streamId, code }) => ({ streamId, code }))) }).toEqual({
        [step.label]: sorted(
          expected.map((frame) => ({ streamId: frame.header.stream_id, code: frame.response?.status.code })),
        ),
      });
      for (const frame of expected) {
        // The texts of the protobuf parsers differ; all others are the same.
        if (/payload not protobuf|envelope not protobuf/.test(step.label)) continue;
        const texts = answers
          .filter(({ streamId }) => streamId === frame.header.stream_id)
          .map(({ message }) => message);
        expect(texts).toContain(frame.response?.status.message);
      }
    }
  });

  it('our server refuses an oversize frame with the same bytes', async () => {
    const cases = load('oversize.json').cases ?? [];
    expect(cases).toHaveLength(2);
    for (const { sent, answer } of cases) {
      const bytes = Buffer.concat([
        Buffer.from(sent.header_hex, 'hex'),
        Buffer.alloc(sent.payload.count, sent.payload.repeat_byte),
      ]);
      const [frame] = await exchange([bytes.toString('hex')], 1);
      const expected = fromBinary(ResponseSchema, Buffer.from(answer.hex, 'hex').subarray(10));
      expect(frame?.code).toBe(expected.status?.code);
      if (sent.payload.count > 4_194_304) expect(frame?.message).toBe(expected.status?.message);
    }
  });
});

interface OversizeCase {
  sent: { header_hex: string; payload: { repeat_byte: number; count: number } };
  answer: { hex: string };
}

/** Sends bytes to a server like the recorded one; returns `count` answers, and checks that it then still serves. */
async function exchange(
  sent: string[],
  count: number,
): Promise<{ streamId: number; code: number | undefined; message: string | undefined }[]> {
  const server = new TtrpcServer().addService(AttestationAgentService, {
    getTeeType: () => ({ tee: 'sample' }),
    getToken: async (_, { timeoutMs, signal }) => {
      // The original attests here; a deadline of one nanosecond passes meanwhile.
      if (timeoutMs === 1) await new Promise((resolve) => signal.addEventListener('abort', resolve));
      return { Token: Buffer.from('{}') };
    },
    getEvidence: () => ({}),
  });
  const [ours, theirs] = duplexPair();
  server.serve(theirs);
  const frames: Frame[] = [];
  const decoder = new FrameDecoder();
  const probe = 0x7fffffff;
  const { promise, resolve } = Promise.withResolvers<void>();
  ours.on('data', (chunk: Buffer) => {
    frames.push(...decoder.push(chunk));
    if (frames.length > count) resolve();
  });
  for (const hex of sent) ours.write(Buffer.from(hex, 'hex'));
  const body = encodeRequest({
    service: 'attestation_agent.AttestationAgentService',
    method: 'GetTeeType',
    payload: new Uint8Array(),
    metadata: {},
  });
  const header = Buffer.alloc(10);
  header.writeUInt32BE(body.length, 0);
  header.writeUInt32BE(probe, 4);
  header.writeUInt8(1, 8);
  ours.write(Buffer.concat([header, body]));
  await promise;
  await server.close();
  const answers = frames.map((frame) => ({
    streamId: frame.streamId,
    status: fromBinary(ResponseSchema, frame.payload ?? new Uint8Array()).status,
  }));
  expect(answers.filter(({ streamId }) => streamId === probe).map(({ status }) => status?.code)).toEqual([0]);
  return answers
    .filter(({ streamId }) => streamId !== probe)
    .map(({ streamId, status }) => ({ streamId, code: status?.code, message: status?.message }));
}
