import { type BenchCase, figure, ratio } from '../measure.ts';
import { podVmObstacle, preparePodVms } from './pod-vm.ts';

export const machineStart: BenchCase = {
  name: 'machine-start',
  definition:
    'a pod VM from the request to its agent serving, against the same QEMU, firmware, TPM and image until the kernel hands over to init',
  obstacle: podVmObstacle,
  run: async ({ runs, scratch, say }) => {
    say('building the pod VM image');
    const machines = await preparePodVms(scratch);
    const [agent, init, agentMemory, hostMemory]: [number[], number[], number[], number[]] = [[], [], [], []];
    // The first boot warms the host's page cache and is not counted.
    await machines.bootToInit();
    for (let run = 0; run < runs; run++) {
      init.push(await machines.bootToInit());
      const { milliseconds, agentMiB, hostMiB } = await machines.bootToAgent();
      agent.push(milliseconds);
      agentMemory.push(agentMiB);
      hostMemory.push(hostMiB);
    }
    const [ours, bare] = [figure('agent serves', 'ms', agent), figure('kernel hands over to init', 'ms', init)];
    return {
      figures: [
        ...[ours, bare],
        figure('guest agent, resident in the guest', 'MiB', agentMemory),
        figure('QEMU, resident on the host', 'MiB', hostMemory),
      ],
      ratios: [ratio(ours, bare)],
      notes: [
        'both sides: 1 processor, 512 MiB, TPM made before; init is the first line of our initial RAM disk on the console',
      ],
    };
  },
};
