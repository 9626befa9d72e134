import { benchmarkPodStart, benchmarkShimStart } from '@sealpod/runtimeclass/bench';
import { containerdBinaries } from '../../test/runtimeclass/fixtures/containerd.ts';
import { startNode } from '../../test/runtimeclass/fixtures/node.ts';
import { missingPrograms, needsRoot } from '../machine.ts';
import { type BenchCase, figure, ratio } from '../measure.ts';

export const podStart: BenchCase = {
  name: 'pod-start',
  definition: 'RunPodSandbox on one containerd: our runtime, the start of the machine taken off, against runc',
  obstacle: () => needsRoot() ?? missingPrograms('containerd', 'runc', 'docker-registry'),
  run: async ({ runs }) => {
    const [binary] = containerdBinaries;
    if (binary === undefined) throw new RangeError('no containerd to measure on');
    // In containerd 1.6 one snapshotter serves all runtimes, and runc needs the files of its sandbox image.
    const sandboxProgram = { file: '/bin/busybox', args: ['sleep', '3600'] };
    const node = await startNode(binary, { snapshotter: 'overlayfs', sandboxProgram });
    try {
      const { cri } = node.containerd;
      const { sealpodSamples, runcSamples } = await benchmarkPodStart(
        cri,
        (name) => node.containerd.pod(name),
        5 * runs + 1,
      );
      // Each pod's machine is told apart from the way to it: what the adaptor takes is not the runtime's time.
      const starts = node.adaptor.startMilliseconds.slice(1);
      const whole = sealpodSamples.slice(1);
      const without = whole.map((milliseconds, at) => milliseconds - (starts[at] ?? Number.NaN));
      const ours = figure('ours without the machine', 'ms', without);
      const peer = figure('runc', 'ms', runcSamples.slice(1));
      const shim = Array.from({ length: runs }, () => benchmarkShimStart(node.shimPath, 5));
      return {
        figures: [
          ours,
          peer,
          figure('ours with the stand-in for a machine', 'ms', whole),
          figure(
            'shim alone, start of a pod',
            'ms',
            shim.map(({ startMs }) => startMs),
          ),
          figure(
            'shim alone, further container',
            'ms',
            shim.map(({ joinMs }) => joinMs),
          ),
        ],
        ratios: [ratio(ours, peer)],
        notes: [
          `${binary.name}; the machine is a process on the host here: the start of a real one is the case machine-start`,
        ],
      };
    } finally {
      await node.stop();
    }
  },
};
