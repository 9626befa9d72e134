import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { StatsContainerResponseSchema } from '@sealpod/protocol/gen/kata/agent_pb';

const nanosecondsPerMicrosecond = 1000n;
/** What cgroup v2 writes as `max`, as cgroup v1 wrote it. */
const noLimit = 0x7fff_ffff_ffff_f000n;

/** Resource use of one container's cgroup (v2) and of the guest's interfaces. What a file is missing is zero. */
export async function readStatistics(
  cgroup: string,
  networkFile = '/proc/net/dev',
): Promise<MessageInitShape<typeof StatsContainerResponseSchema>> {
  const [cpu, memory, current, peak, limit, swap, pids, pidsLimit, io, events, network] = await Promise.all([
    keyed(join(cgroup, 'cpu.stat')),
    keyed(join(cgroup, 'memory.stat')),
    single(join(cgroup, 'memory.current')),
    single(join(cgroup, 'memory.peak')),
    single(join(cgroup, 'memory.max')),
    single(join(cgroup, 'memory.swap.current')),
    single(join(cgroup, 'pids.current')),
    single(join(cgroup, 'pids.max')),
    text(join(cgroup, 'io.stat')),
    keyed(join(cgroup, 'memory.events')),
    text(networkFile),
  ]);
  const nanoseconds = (name: string) => (cpu[name] ?? 0n) * nanosecondsPerMicrosecond;
  return {
    cgroupStats: {
      cpuStats: {
        cpuUsage: {
          totalUsage: nanoseconds('usage_usec'),
          usageInKernelmode: nanoseconds('system_usec'),
          usageInUsermode: nanoseconds('user_usec'),
        },
        throttlingData: {
          periods: cpu['nr_periods'] ?? 0n,
          throttledPeriods: cpu['nr_throttled'] ?? 0n,
          throttledTime: nanoseconds('throttled_usec'),
        },
      },
      memoryStats: {
        cache: memory['file'] ?? 0n,
        usage: { usage: current, maxUsage: peak, failcnt: events['max'] ?? 0n, limit },
        swapUsage: { usage: swap },
        kernelUsage: { usage: memory['kernel'] ?? 0n },
        useHierarchy: true,
        stats: memory,
      },
      pidsStats: { current: pids, limit: pidsLimit === noLimit ? 0n : pidsLimit },
      blkioStats: { ioServiceBytesRecursive: ioEntries(io, 'bytes'), ioServicedRecursive: ioEntries(io, 'ios') },
    },
    networkStats: networkEntries(network),
  };
}

async function text(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    // A controller that is off has no files; a container that just ended has no cgroup.
    if (error.code === 'ENOENT' || error.code === 'ENODEV') return '';
    throw error;
  });
}

async function single(file: string): Promise<bigint> {
  const value = (await text(file)).trim();
  if (value === 'max') return noLimit;
  return /^\d+$/.test(value) ? BigInt(value) : 0n;
}

/** Lines of name and number. */
export async function keyed(file: string): Promise<Record<string, bigint>> {
  const lines = (await text(file)).split('\n').map((line) => line.split(' '));
  return Object.fromEntries(
    lines.flatMap(([name, value]) => (name && value && /^\d+$/.test(value) ? [[name, BigInt(value)]] : [])),
  );
}

function ioEntries(io: string, unit: 'bytes' | 'ios') {
  return io.split('\n').flatMap((line) => {
    const [device = '', ...pairs] = line.split(' ');
    const [major, minor] = device.split(':');
    const values = new Map(pairs.map((pair) => pair.split('=') as [string, string]));
    return [
      ['Read', `r${unit}`],
      ['Write', `w${unit}`],
    ].flatMap(([op = '', key = '']) => {
      const value = values.get(key);
      if (!/^\d+$/.test(major ?? '') || value === undefined) return [];
      return [{ major: BigInt(major ?? 0), minor: BigInt(minor ?? 0), op, value: BigInt(value) }];
    });
  });
}

function networkEntries(table: string) {
  return table.split('\n').flatMap((line) => {
    const [name, values] = line.split(':');
    const numbers = (values ?? '').trim().split(/\s+/);
    if (name === undefined || numbers.length < 12 || !numbers.every((number) => /^\d+$/.test(number))) return [];
    const at = (index: number) => BigInt(numbers[index] ?? 0);
    return [
      {
        name: name.trim(),
        rxBytes: at(0),
        rxPackets: at(1),
        rxErrors: at(2),
        rxDropped: at(3),
        txBytes: at(8),
        txPackets: at(9),
        txErrors: at(10),
        txDropped: at(11),
      },
    ];
  });
}
