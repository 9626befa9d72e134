import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { streamOffsetFeature, streamOffsetKey } from '@sealpod/protocol/stream-offset';
import { Status, TtrpcError, TtrpcServer } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Logger } from '../log.ts';
import { GuestConnection, isConnectionLoss } from './connection.ts';

let folder: string;
let cleanups: (() => unknown)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-guest-'));
  cleanups = [];
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  rmSync(folder, { recursive: true, force: true });
});

const log: Logger = { info: () => undefined, debug: () => undefined, close: () => undefined };
const outOfReach = () => new TtrpcError(Status.unavailable, 'AGENT_UNREACHABLE: the connection to the guest was lost');
const ended = () =>
  new TtrpcError(Status.unavailable, 'VM_ENDED: the pod VM x has ended; its console ends with: panic');

/** A relay that answers as `behaviour` says; without one, as a healthy guest. */
async function relay(behaviour: { failing?: () => TtrpcError | undefined }) {
  const offsets: (string | undefined)[] = [];
  const fail = (): void => {
    const error = behaviour.failing?.();
    if (error) throw error;
  };
  const server = new TtrpcServer()
    .addService(Health, {
      check: () => {
        fail();
        return { status: 1 };
      },
    })
    .addService(AgentService, {
      waitProcess: () => {
        fail();
        return { status: 3 };
      },
      writeStdin: ({ data }, { metadata }) => {
        offsets.push(metadata[streamOffsetKey]?.[0]);
        fail();
        return { len: data.length };
      },
    });
  const path = join(folder, 'agent.ttrpc');
  await server.listen(path);
  const settings = { reconnectTimeout: 1, healthCheckInterval: 0.2, healthCheckTimeout: 5 };
  const guest = new GuestConnection(path, settings, async () => true, log);
  cleanups.push(
    () => server.close(),
    () => guest.close(),
  );
  await guest.open();
  return { guest, offsets };
}

/** Fails so many times. */
const times = (count: number, error: () => TtrpcError) => {
  let left = count;
  return () => (left-- > 0 ? error() : undefined);
};
const data = Buffer.from('ab');

describe('a guest that its relay has lost', () => {
  it('is waited for by calls that only wait, and health checks do not end the pod', async () => {
    const behaviour: { failing?: () => TtrpcError | undefined } = {};
    const { guest } = await relay(behaviour);
    behaviour.failing = times(4, outOfReach);
    expect((await guest.waitCall((agent) => agent.waitProcess({}))).status).toBe(3);
    behaviour.failing = times(3, outOfReach);
    await new Promise((resolve) => setTimeout(resolve, 900));
    expect((await guest.call((agent) => agent.waitProcess({}))).status).toBe(3);
    expect(await Promise.race([guest.lost, 'not lost'])).toBe('not lost');
  });

  it('is given up after the time it has to come back', async () => {
    const behaviour: { failing?: () => TtrpcError | undefined } = {};
    const { guest } = await relay(behaviour);
    behaviour.failing = outOfReach;
    await expect(guest.waitCall((agent) => agent.waitProcess({}))).rejects.toMatchObject({ status: 14 });
    expect(await guest.lost).toContain('AGENT_UNREACHABLE');
  });

  it('takes bytes again only where it counts them', async () => {
    const behaviour: { failing?: () => TtrpcError | undefined } = {};
    const { guest, offsets } = await relay(behaviour);
    const write = () => guest.streamCall(7, false, (agent, options) => agent.writeStdin({ data }, options));
    behaviour.failing = times(1, outOfReach);
    const failure = await write().catch((error: unknown) => error);
    expect(isConnectionLoss(failure)).toBe(true);
    guest.use([streamOffsetFeature]);
    behaviour.failing = times(2, outOfReach);
    expect((await write()).len).toBe(2);
    expect(offsets).toEqual([undefined, '7', '7', '7']);
  });
});

describe('a machine that has ended', () => {
  it('is lost at once, with what the adaptor says of it', async () => {
    const behaviour: { failing?: () => TtrpcError | undefined } = {};
    const { guest } = await relay(behaviour);
    behaviour.failing = ended;
    await expect(guest.waitCall((agent) => agent.waitProcess({}))).rejects.toMatchObject({ status: 14 });
    expect(await guest.lost).toBe(ended().message);
  });

  it('is noticed by a health check where nobody calls', async () => {
    const behaviour: { failing?: () => TtrpcError | undefined } = {};
    const { guest } = await relay(behaviour);
    behaviour.failing = ended;
    expect(await guest.lost).toBe(ended().message);
  });
});
