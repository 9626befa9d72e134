import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { PodSandboxConfigSchema } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import type { CriClient } from './cri/client.ts';

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

/** Memory of a process in MiB, from the kernel's smaps_rollup. */
export interface ProcessMemory {
  readonly residentMiB: number;
  readonly proportionalMiB: number;
  readonly anonymousMiB: number;
}

/** Memory of a process of this machine. */
export function processMemory(pid: number): ProcessMemory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const mebibytes = (name: string): number =>
    Math.round((Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? Number.NaN) / 1024) * 10) / 10;
  return { residentMiB: mebibytes('Rss'), proportionalMiB: mebibytes('Pss'), anonymousMiB: mebibytes('Anonymous') };
}

/** One figure of `benchmarkShimStart`: medians over the rounds, in milliseconds. */
export interface ShimStart {
  readonly startMs: number;
  readonly joinMs: number;
  readonly memory: ProcessMemory;
}

/**
 * The bootstrap alone: `start` of a pod until its address is printed, `start` of a further container of the pod, and the
 * idle daemon's memory. No containerd takes part; each daemon is ended again.
 */
export function benchmarkShimStart(shimPath: string, rounds = 10): ShimStart {
  const starts: number[] = [];
  const joins: number[] = [];
  let memory: ProcessMemory | undefined;
  for (let round = 0; round < rounds; round++) {
    const bundle = mkdtempSync(join(tmpdir(), 'sealpod-bench-'));
    const address = join(bundle, 'containerd.sock');
    const socket = `/run/containerd/s/${createHash('sha256').update(`${address}/bench/pod`).digest('hex')}`;
    const start = (type: string): number => {
      writeFileSync(
        join(bundle, 'config.json'),
        JSON.stringify({
          annotations: { 'io.kubernetes.cri.container-type': type, 'io.kubernetes.cri.sandbox-id': 'pod' },
        }),
      );
      const began = performance.now();
      execFileSync(shimPath, ['-namespace', 'bench', '-address', address, '-id', 'pod', 'start'], {
        cwd: bundle,
        env: { PATH: process.env.PATH },
      });
      return performance.now() - began;
    };
    starts.push(start('sandbox'));
    joins.push(start('container'));
    const pid = Number(readFileSync(join(bundle, 'shim.pid'), 'utf8'));
    memory = processMemory(pid);
    process.kill(pid, 'SIGKILL');
    for (const path of [socket, bundle]) rmSync(path, { recursive: true, force: true });
  }
  if (memory === undefined) throw new RangeError('a benchmark needs at least one round');
  return { startMs: median(starts), joinMs: median(joins), memory };
}

/** RunPodSandbox of two runtimes on one containerd, in milliseconds, one sample a round. */
export interface PodStarts {
  readonly sealpodSamples: readonly number[];
  readonly runcSamples: readonly number[];
}

/**
 * Starts and removes pods of both runtimes in turn through the CRI. What the machine of our pods takes depends on the
 * adaptor behind the shim: with a real one this is the whole way to a running sandbox.
 *
 * @throws grpc-js's ServiceError when a pod cannot be started.
 */
export async function benchmarkPodStart(
  cri: CriClient,
  pod: (name: string) => MessageInitShape<typeof PodSandboxConfigSchema>,
  rounds = 10,
): Promise<PodStarts> {
  const once = async (runtimeHandler: string, round: number): Promise<number> => {
    const config = pod(`bench-${runtimeHandler}-${round}`);
    const began = performance.now();
    const { podSandboxId } = await cri.runtime.runPodSandbox({ config, runtimeHandler });
    const elapsed = performance.now() - began;
    await cri.runtime.stopPodSandbox({ podSandboxId });
    await cri.runtime.removePodSandbox({ podSandboxId });
    return elapsed;
  };
  const sealpodSamples: number[] = [];
  const runcSamples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    sealpodSamples.push(await once('sealpod', round));
    runcSamples.push(await once('runc', round));
  }
  return { sealpodSamples, runcSamples };
}
