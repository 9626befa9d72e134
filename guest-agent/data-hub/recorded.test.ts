import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromBinary } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import { ResponseSchema } from '@sealpod/protocol/gen/ttrpc/envelope_pb';
import { resourceHttpPath } from '@sealpod/protocol/resource-uri';
import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { describe, expect, it } from 'vitest';
import { AttestationAgent } from '../attestation-agent/attestation-agent.ts';
import { addAttestationAgentService } from '../attestation-agent/attestation-service.ts';
import { createSampleAttester } from '../attesters/sample/sample-attester.ts';
import { exchangeFrame, type RecordedCall, recordedCalls, recordedResources, recording } from '../testing/recorded.ts';
import { DataHub } from './data-hub.ts';
import { addDataHubServices } from './data-hub-service.ts';

/** A key broker that holds what the recorded one held. */
function resourcesOf(path: string): Map<string, Buffer> {
  const resources = recordedResources(path);
  resources.set('default/key/bin', Buffer.from([0, 1, 255]));
  resources.set('default/key/empty', Buffer.alloc(0));
  resources.set('default/kek/short', Buffer.from('12345'));
  return resources;
}

function hubOver(resources: ReadonlyMap<string, Buffer>, skipSealedSecretVerification: boolean): DataHub {
  return new DataHub({
    skipSealedSecretVerification,
    attestationAgent: {
      resource: async (uri) => {
        const prefix = '/kbs/v0/resource/';
        const path = resourceHttpPath(uri).split('?')[0] ?? '';
        const found = path.startsWith(prefix) ? resources.get(path.slice(prefix.length)) : undefined;
        if (found === undefined) throw new SealpodError('RES_NOT_FOUND', 'no such resource', { correlationId: 'c-1' });
        return found;
      },
    },
  });
}

/** Sends the recorded request frame and expects the recorded answer; a failure may add its reason to the text. */
async function expectSame(socket: string, call: RecordedCall): Promise<void> {
  const frame = await exchangeFrame(socket, call.request);
  const { status, payload } = fromBinary(ResponseSchema, frame.subarray(10));
  expect({ label: call.label, status: status?.code ?? 0 }).toEqual({ label: call.label, status: call.status });
  if (call.status === 0)
    expect([call.label, Buffer.from(payload).toString('hex')]).toEqual([call.label, call.payload.toString('hex')]);
  else expect(`${call.label}: ${status?.message}`).toContain(`${call.label}: ${call.message}`);
}

async function withServer(server: TtrpcServer, use: (socket: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'sealpod-recorded-'));
  const socket = join(directory, 's.sock');
  await server.listen(socket);
  try {
    await use(socket);
  } finally {
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

describe('recorded calls of the real data hub, replayed', () => {
  // What we refuse and upstream does not, or the other way round, on purpose.
  const different: Readonly<Record<string, readonly string[]>> = {
    // Same status; the words are those of the protobuf library.
    'ttrpc/cdh-get-resource': ['payload not protobuf'],
  };

  it.for([
    'ttrpc/cdh-get-resource',
    'ttrpc/cdh-unseal',
    'ttrpc/cdh-unseal-skip',
    'ttrpc/cdh-unwrap-key',
    'ttrpc/cdh-services',
    'ttrpc/cdh-tool',
  ])('%s', async (name, context) => {
    const { path, missing } = recording(name);
    if (missing !== undefined) context.skip(missing);
    const calls = recordedCalls(path, 'cdh').filter(({ label }) => different[name]?.includes(label) !== true);
    expect(calls.length).toBeGreaterThan(0);
    const hub = hubOver(resourcesOf(path), name.endsWith('-skip'));
    await withServer(addDataHubServices(new TtrpcServer(), hub), async (socket) => {
      for (const call of calls) await expectSame(socket, call);
    });
  });
});

describe('recorded calls of the real attestation-agent, replayed', () => {
  it('ttrpc/aa-methods', async (context) => {
    const { path, missing } = recording('ttrpc/aa-methods');
    if (missing !== undefined) context.skip(missing);
    // Tokens are made anew each time; type coco_as asks another service, which this guest does not.
    const calls = recordedCalls(path, 'attestation-agent').filter(
      ({ label }) => !['GetToken kbs', 'GetToken coco_as'].includes(label),
    );
    expect(calls.length).toBeGreaterThan(10);
    const agent = new AttestationAgent({ attester: createSampleAttester() });
    await withServer(addAttestationAgentService(new TtrpcServer(), agent), async (socket) => {
      for (const call of calls) await expectSame(socket, call);
    });
  });

  it('ttrpc/kbs-down: the text of upstream, and the reason', async (context) => {
    const { path, missing } = recording('ttrpc/kbs-down');
    if (missing !== undefined) context.skip(missing);
    const down = () => Promise.reject(new SealpodError('KBS_UNREACHABLE', 'away', { correlationId: 'c-7' }));
    const agent = new AttestationAgent({
      attester: createSampleAttester(),
      connection: { send: down },
      attempts: 2,
      retryDelayMs: 1,
    });
    await withServer(addAttestationAgentService(new TtrpcServer(), agent), async (socket) => {
      for (const call of recordedCalls(path, 'attestation-agent')) {
        await expectSame(socket, call);
        const { status } = fromBinary(ResponseSchema, (await exchangeFrame(socket, call.request)).subarray(10));
        expect(status?.message).toBe(`${call.message}: KBS_UNREACHABLE: away (correlation c-7)`);
      }
    });
  });
});
