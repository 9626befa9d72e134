import { create } from '@bufbuild/protobuf';
import {
  type Client,
  credentials,
  makeClientConstructor,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { afterEach, expect, it } from 'vitest';
import {
  AttestationService,
  type ChallengeRequest,
  ChallengeRequestSchema,
  type ChallengeResponse,
  ChallengeResponseSchema,
} from './gen/coco/attestation_pb.ts';
import {
  ListSnapshotsRequestSchema,
  type ListSnapshotsResponse,
  ListSnapshotsResponseSchema,
  Snapshots,
} from './gen/containerd/snapshots_pb.ts';
import { toGrpcServiceDefinition } from './grpc.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function started(server: Server): Promise<string> {
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  closers.push(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

function clientOf(definition: ReturnType<typeof toGrpcServiceDefinition>, address: string): Client {
  const client = new (makeClientConstructor(definition, 'test'))(address, credentials.createInsecure());
  closers.push(() => client.close());
  return client;
}

it('carries a unary call and its error status', async () => {
  const definition = toGrpcServiceDefinition(AttestationService);
  const server = new Server();
  server.addService(definition, {
    getAttestationChallenge: (
      call: { request: ChallengeRequest },
      answer: (error: Partial<ServiceError> | null, response?: ChallengeResponse) => void,
    ) => {
      const tee = call.request.inner['tee'];
      if (tee === 'none') answer({ code: status.ABORTED, details: 'no such TEE' });
      else answer(null, create(ChallengeResponseSchema, { attestationChallenge: `for ${tee}` }));
    },
  });
  const client = clientOf(definition, await started(server));
  const method = definition['getAttestationChallenge'];
  if (!method) throw new Error('the definition lacks the method');
  expect(method.path).toBe('/attestation.AttestationService/GetAttestationChallenge');
  const call = (tee: string) =>
    new Promise<unknown>((resolve, reject) => {
      client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        create(ChallengeRequestSchema, { inner: { tee } }),
        (error, response) => (error ? reject(error) : resolve(response)),
      );
    });
  await expect(call('tpm')).resolves.toMatchObject({ attestationChallenge: 'for tpm' });
  await expect(call('none')).rejects.toMatchObject({ code: status.ABORTED, details: 'no such TEE' });
});

it('carries a server stream', async () => {
  const definition = toGrpcServiceDefinition(Snapshots);
  const server = new Server();
  server.addService(definition, {
    list: (call: { write: (message: ListSnapshotsResponse) => void; end: () => void }) => {
      for (const name of ['a', 'b']) call.write(create(ListSnapshotsResponseSchema, { info: [{ name }] }));
      call.end();
    },
  });
  const client = clientOf(definition, await started(server));
  const method = definition['list'];
  if (!method) throw new Error('the definition lacks the method');
  expect(method).toMatchObject({ requestStream: false, responseStream: true });
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    create(ListSnapshotsRequestSchema, {}),
  );
  const names: string[] = [];
  for await (const message of stream as AsyncIterable<ListSnapshotsResponse>)
    names.push(...message.info.map((info) => info.name));
  expect(names).toEqual(['a', 'b']);
});
