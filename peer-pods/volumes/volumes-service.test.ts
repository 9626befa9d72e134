import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Volumes } from '@sealpod/protocol/gen/sealpod/volumes_pb';
import { createClient, Status, TtrpcConnection } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Adaptor } from '../adaptor/adaptor.ts';
import { parseConfig } from '../adaptor/config.ts';
import { hypervisorServer } from '../adaptor/hypervisor-service.ts';
import { createLog } from '../adaptor/log.ts';
import { createProvider } from '../adaptor/provider-for-tests.ts';
import { AdaptorMetrics } from '../adaptor/status/metrics.ts';
import { addVolumesService } from './volumes-service.ts';

const log = createLog('silent');
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sp-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Opens the adaptor of this folder, serves it, runs `work` with a client, and lets go of it again. */
async function withAdaptor<T>(
  work: (adaptor: Adaptor, client: ReturnType<typeof createClient<typeof Volumes>>) => Promise<T>,
  isOurs = true,
): Promise<T> {
  const socket = join(folder, 'hypervisor.sock');
  const config = parseConfig(
    JSON.stringify({
      socket,
      podsDirectory: join(folder, 'pods'),
      stateDirectory: join(folder, 'state'),
      provider: { name: 'module' },
    }),
    'test',
  );
  const provider = await createProvider(
    {},
    { stateDirectory: join(folder, 'state'), podsDirectory: config.podsDirectory, log: () => undefined },
  );
  const adaptor = await Adaptor.open(config, provider, log, new AdaptorMetrics());
  const server = hypervisorServer(adaptor, config);
  await (isOurs ? addVolumesService(server, adaptor) : server).listen(socket, { mode: 0o600 });
  const connection = await TtrpcConnection.connect(socket);
  try {
    return await work(adaptor, createClient(Volumes, connection));
  } finally {
    connection.close();
    await server.close();
    await adaptor.close();
  }
}

const request = { sandboxId: 's1', volumeId: '/pods/1/mount', device: '/dev/loop7', readOnly: false };
const file = () => join(folder, 'pods/s1/volume-0');

it('attaches over the socket, keeps it over a restart of the adaptor, and takes it off with the machine', async () => {
  const answer = await withAdaptor(async (adaptor, client) => {
    await expect(client.attachVolume(request)).rejects.toMatchObject({ status: Status.notFound });
    await adaptor.create({
      ...{ id: 's1', name: 'podvm-a', pod: { name: 'a', namespace: 'default', uid: 'u' }, vcpus: 1, memoryMiB: 512 },
      ...{ image: undefined, netnsPath: undefined, initdata: undefined },
    });
    await expect(client.attachVolume(request)).rejects.toMatchObject({ status: Status.notFound });
    await adaptor.start('s1', AbortSignal.timeout(20_000));
    return client.attachVolume(request);
  });
  expect(answer).toMatchObject({ driver: 'scsi', source: '0:0' });
  expect(readFileSync(file(), 'utf8')).toBe('/dev/loop7');
  await withAdaptor(async (adaptor, client) => {
    expect(await client.attachVolume(request)).toEqual(answer);
    await client.detachVolume(request);
    expect(existsSync(file())).toBe(false);
    await client.attachVolume(request);
    await adaptor.stop('s1');
    expect(existsSync(join(folder, 'pods/s1'))).toBe(false);
  });
});

it('an adaptor without the service says so, which a shim can tell from a failure', async () => {
  await withAdaptor(async (_adaptor, client) => {
    await expect(client.attachVolume(request)).rejects.toMatchObject({
      status: Status.invalidArgument,
      message: expect.stringContaining('sealpod.volumes.Volumes'),
    });
  }, false);
});
