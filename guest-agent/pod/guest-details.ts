import { readdir, readFile, writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { GuestDetailsRequest, GuestDetailsResponseSchema } from '@sealpod/protocol/gen/kata/agent_pb';
import { streamOffsetFeature } from '@sealpod/protocol/stream-offset';
import { storageDrivers } from './storage.ts';

const memoryBlockFile = '/sys/devices/system/memory/block_size_bytes';
const cpuFolder = '/sys/devices/system/cpu';

/** What the guest is and can. Memory cannot be added to a measured machine. */
export async function guestDetails(
  request: GuestDetailsRequest,
  version: string,
): Promise<MessageInitShape<typeof GuestDetailsResponseSchema>> {
  return {
    memBlockSizeBytes: request.memBlockSize ? await memoryBlockSize() : 0n,
    agentDetails: {
      version,
      initDaemon: false,
      deviceHandlers: [],
      storageHandlers: [...storageDrivers],
      supportsSeccomp: true,
      extraFeatures: [streamOffsetFeature],
    },
    supportMemHotplugProbe: false,
  };
}

async function memoryBlockSize(): Promise<bigint> {
  const text = await readFile(memoryBlockFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '0';
    throw error;
  });
  return BigInt(`0x${text.trim()}`);
}

/** Brings CPUs that are present and off on line. */
export async function bringCpusOnline(): Promise<void> {
  for (const name of await readdir(cpuFolder)) {
    const file = join(cpuFolder, name, 'online');
    if (!/^cpu\d+$/.test(name)) continue;
    const state = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      // The first CPU cannot be switched and has no such file.
      if (error.code === 'ENOENT') return '1';
      throw error;
    });
    if (state.trim() === '0') await writeFile(file, '1');
  }
}

let scrapes = 0;

/** Prometheus text: this program, and the guest around it. */
export async function metrics(): Promise<string> {
  const memory = await readFile('/proc/meminfo', 'utf8');
  const { rss, heapTotal } = process.memoryUsage();
  const meminfo = [...memory.matchAll(/^([A-Za-z_()]+):\s+(\d+) kB$/gm)].map(
    ([, item, kilobytes]) => `kata_guest_meminfo{item="${item}"} ${Number(kilobytes) * 1024}`,
  );
  const load = loadavg().map((value, index) => `kata_guest_load{item="load${[1, 5, 15][index]}"} ${value}`);
  return [
    '# TYPE kata_agent_scrape_count counter',
    `kata_agent_scrape_count ${++scrapes}`,
    '# TYPE kata_agent_total_time counter',
    `kata_agent_total_time ${process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6}`,
    '# TYPE kata_agent_total_rss gauge',
    `kata_agent_total_rss ${rss}`,
    '# TYPE kata_agent_total_vm gauge',
    `kata_agent_total_vm ${heapTotal}`,
    '# TYPE kata_guest_load gauge',
    ...load,
    '# TYPE kata_guest_meminfo gauge',
    ...meminfo,
    '',
  ].join('\n');
}
