import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { stopDaemon } from '@sealpod/processes';
import { benchmarkShimStart, type ProcessMemory, processMemory } from '@sealpod/runtimeclass/bench';
import { startAdaptor } from '../../cli/development/adaptor.ts';
import { startSnapshotter } from '../../cli/development/containerd.ts';
import { layoutOf } from '../../cli/development/layout.ts';
import { bundleRuntime } from '../../cli/development/runtime.ts';
import { missingPrograms, needsRoot } from '../machine.ts';
import { type BenchCase, type Figure, figure } from '../measure.ts';
import { runLoad, startLoadedKeyBroker } from './key-broker.ts';

export const memory: BenchCase = {
  name: 'memory',
  definition: 'resident memory of the processes on the host: idle, and the key broker after load',
  obstacle: () => needsRoot() ?? missingPrograms('swtpm_setup'),
  run: async (context) => {
    const layout = layoutOf(join(context.scratch, 'memory'));
    for (const directory of [layout.home, layout.run]) mkdirSync(directory, { recursive: true, mode: 0o700 });
    const bundle = await bundleRuntime(layout);
    const samples = new Map<string, ProcessMemory[]>();
    const add = (name: string, memory: ProcessMemory): void => {
      samples.set(name, [...(samples.get(name) ?? []), memory]);
    };
    try {
      for (let run = 0; run < context.runs; run++) {
        add('shim, idle', benchmarkShimStart(bundle.shimPath, 1).memory);
        for (const [name, start] of [
          ['adaptor, idle', () => startAdaptor(layout, false)],
          ['snapshotter, idle', () => startSnapshotter(layout, bundle)],
        ] as const) {
          const { daemon } = await start();
          add(name, processMemory(daemon.pid));
          await stopDaemon(daemon);
        }
        const { home, kbs, pid } = await startLoadedKeyBroker();
        try {
          add('key broker, idle', processMemory(pid));
          await runLoad(context, kbs.address, 'release', 16, pid);
          add('key broker, after releases by 16 clients', processMemory(pid));
        } finally {
          await home.remove();
        }
      }
    } finally {
      rmSync(layout.run, { recursive: true, force: true });
    }
    const figures = [...samples].flatMap(([name, memories]): Figure[] => [
      figure(
        name,
        'MiB',
        memories.map(({ residentMiB }) => residentMiB),
      ),
      figure(
        `${name}, of it not shared with files`,
        'MiB',
        memories.map(({ anonymousMiB }) => anonymousMiB),
      ),
    ]);
    const note = 'pages of the Node binary are resident in each process and shared by all; guests: case machine-start';
    return { figures, ratios: [], notes: [note] };
  },
};
