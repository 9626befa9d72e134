import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Any, anyPack } from '@bufbuild/protobuf/wkt';
import { type BlkIOEntrySchema, MetricsSchema } from '@sealpod/protocol/gen/containerd/cgroups_v1_pb';
import type { BlkioStatsEntry, StatsContainerResponse } from '@sealpod/protocol/gen/kata/agent_pb';

/** Under the name that containerd knows: an empty or unknown Any fails CRI's ContainerStats. */
const typeUrl = 'io.containerd.cgroups.v1.Metrics';

const entries = (list: readonly BlkioStatsEntry[] | undefined): MessageInitShape<typeof BlkIOEntrySchema>[] =>
  (list ?? []).map(({ op, major, minor, value }) => ({ op, major, minor, value }));

/**
 * The statistics of a container as containerd's cgroup v1 metrics, which all its versions read whatever the node's
 * cgroups are. Memory counters of both cgroup versions are looked up by either of their names.
 */
export function toMetrics(response: StatsContainerResponse): Any {
  const { cpuStats, memoryStats, pidsStats, blkioStats } = response.cgroupStats ?? {};
  const counter = (...names: string[]): bigint => {
    for (const name of names) {
      const value = memoryStats?.stats[name];
      if (value !== undefined) return value;
    }
    return 0n;
  };
  const metrics = create(MetricsSchema, {
    pids: { current: pidsStats?.current ?? 0n, limit: pidsStats?.limit ?? 0n },
    cpu: {
      usage: {
        total: cpuStats?.cpuUsage?.totalUsage ?? 0n,
        kernel: cpuStats?.cpuUsage?.usageInKernelmode ?? 0n,
        user: cpuStats?.cpuUsage?.usageInUsermode ?? 0n,
        perCpu: cpuStats?.cpuUsage?.percpuUsage ?? [],
      },
      throttling: {
        periods: cpuStats?.throttlingData?.periods ?? 0n,
        throttledPeriods: cpuStats?.throttlingData?.throttledPeriods ?? 0n,
        throttledTime: cpuStats?.throttlingData?.throttledTime ?? 0n,
      },
    },
    memory: {
      cache: memoryStats?.cache ?? 0n,
      rss: counter('rss', 'anon'),
      pgFault: counter('pgfault'),
      pgMajFault: counter('pgmajfault'),
      totalRss: counter('total_rss', 'anon'),
      totalInactiveFile: counter('total_inactive_file', 'inactive_file'),
      usage: {
        usage: memoryStats?.usage?.usage ?? 0n,
        max: memoryStats?.usage?.maxUsage ?? 0n,
        failcnt: memoryStats?.usage?.failcnt ?? 0n,
        limit: memoryStats?.usage?.limit ?? 0n,
      },
    },
    blkio: {
      ioServiceBytesRecursive: entries(blkioStats?.ioServiceBytesRecursive),
      ioServicedRecursive: entries(blkioStats?.ioServicedRecursive),
    },
    network: response.networkStats.map(({ $typeName, $unknown, ...counters }) => counters),
  });
  const any = anyPack(MetricsSchema, metrics);
  any.typeUrl = typeUrl;
  return any;
}
