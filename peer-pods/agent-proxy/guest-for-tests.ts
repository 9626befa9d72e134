/**
 * A process that behaves like the agent in a guest, on a unix socket that stands in for the serial port. For tests.
 *
 * `node guest-for-tests.ts SOCKET JOURNAL`: each network request is appended to the journal as one JSON line.
 *
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health, HealthCheckResponse_ServingStatus } from '@sealpod/protocol/gen/kata/health_pb';
import { Status, TtrpcError, TtrpcServer } from '@sealpod/protocol/ttrpc';

/** Starts the process; resolves once it serves. */
export async function spawnGuest(socketPath: string, journal: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [import.meta.filename, socketPath, journal], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [first] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
  if (String(first).trim() !== 'serving') throw new Error('the test guest did not start');
  return child;
}

async function serve(socketPath: string, journal: string): Promise<void> {
  const note = (method: string, request: unknown) => {
    appendFileSync(
      journal,
      `${JSON.stringify({ method, request }, (_, value) => (typeof value === 'bigint' ? String(value) : value))}\n`,
    );
  };
  const server = new TtrpcServer()
    .addService(Health, {
      check: () => ({ status: HealthCheckResponse_ServingStatus.SERVING }),
      version: () => ({ grpcVersion: '0.0.1', agentVersion: `test ${process.pid}` }),
    })
    .addService(AgentService, {
      updateInterface: (request) => {
        note('UpdateInterface', request.interface);
        return request.interface ?? {};
      },
      updateRoutes: (request) => {
        note('UpdateRoutes', request.routes);
        return request.routes ?? {};
      },
      addARPNeighbors: (request) => {
        note('AddARPNeighbors', request.neighbors);
        return {};
      },
      writeStdin: ({ data }) => ({ len: data.length }),
      readStdout: ({ containerId, len }) => ({ data: Buffer.alloc(len, containerId) }),
      // Blocks until its deadline, as for a process that does not end.
      waitProcess: (_, { signal }) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      startContainer: ({ containerId }) => {
        throw new TtrpcError(Status.permissionDenied, `StartContainerRequest is blocked by policy: ${containerId}`);
      },
      statsContainer: (_, { metadata, timeoutMs }) => ({
        cgroupStats: {
          memoryStats: { stats: { timeout: BigInt(timeoutMs ?? 0), tags: BigInt(metadata['tag']?.length ?? 0) } },
        },
      }),
    });
  await server.listen(socketPath);
  process.stdout.write('serving\n');
}

if (import.meta.main) {
  const [socketPath, journal] = process.argv.slice(2);
  if (!socketPath || !journal) throw new Error('usage: guest-for-tests.ts SOCKET JOURNAL');
  await serve(socketPath, journal);
}
