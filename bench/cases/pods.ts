import { loadavg } from 'node:os';
import type { SandboxStatus, StageRecord } from '@sealpod/protocol/status';
import { ClusterPods, type SandboxSeconds, type StartedPods } from '../load/cluster-pods.ts';
import { missingPrograms, needsRoot } from '../machine.ts';
import { type BenchCase, type Figure, figure, type Measured, type Ratio, ratio } from '../measure.ts';

export const pods: BenchCase = {
  name: 'pods',
  definition: 'pods on a Kubernetes of this machine from `kubectl apply` to Running: ours by stage, and with runc',
  onRequest: true,
  obstacle: () =>
    needsRoot() ??
    missingPrograms('go', 'nft', 'runc', 'docker-registry', 'qemu-system-x86_64', 'swtpm', 'swtpm_setup'),
  run: async ({ pods: counts, say }) => {
    const cluster = new ClusterPods();
    try {
      say('pods: starting the cluster');
      await cluster.start(Math.max(...counts));
      return await measure(cluster, counts, say);
    } finally {
      await cluster.end();
    }
  },
};

async function measure(
  cluster: ClusterPods,
  counts: readonly number[],
  say: (text: string) => void,
): Promise<Measured> {
  const figures: Figure[] = [];
  const ratios: Ratio[] = [];
  const notes = [
    'no guest attests here: its image is plain, and it asks for no secret; pulling is in the guest, anew for each pod',
  ];
  const load = (what: string): void => void notes.push(`load ${(loadavg()[0] ?? 0).toFixed(1)} after ${what}`);
  const idleAdaptor = cluster.adaptorMemory();

  say('pods: cold');
  const cold = await cluster.run('sealpod', 1);
  figures.push(...startFigures('ours cold, 1 pod', cold));
  load('ours cold');
  await cluster.clear();
  // The plain runtime unpacks the image on the node, once.
  const first = await cluster.run('runc', 1);
  figures.push(figure('runc cold, 1 pod', 'ms', first.milliseconds));
  await cluster.clear();

  for (const count of counts) {
    say(`pods: ${count} at once`);
    const before = { ours: await cluster.sandboxSeconds('sealpod'), runc: await cluster.sandboxSeconds('') };
    const ours = await cluster.run('sealpod', count);
    figures.push(...startFigures(`ours warm, ${count} at once`, ours));
    const memory = await cluster.podMemory();
    figures.push(figure(`shim of a pod, ${count} pods, PSS`, 'MiB', memory.shim));
    figures.push(figure(`QEMU of a pod, ${count} pods, PSS`, 'MiB', memory.hypervisor));
    figures.push(figure(`adaptor, ${count} pods, PSS`, 'MiB', [cluster.adaptorMemory()]));
    load(`${count} of ours`);
    await cluster.clear();
    const runc = await cluster.run('runc', count);
    figures.push(figure(`runc warm, ${count} at once, until Running`, 'ms', runc.milliseconds));
    load(`${count} of runc`);
    const after = { ours: await cluster.sandboxSeconds('sealpod'), runc: await cluster.sandboxSeconds('') };
    const machine = mean(ours.sandboxes.map((one) => stageMs(one, 'creating-vm') + stageMs(one, 'booting')));
    const what = `RunPodSandbox, ${count} at once, mean`;
    const oursMs = figure(`${what}, less creating and booting the VM`, 'ms', [
      meanMs(before.ours, after.ours) - machine,
    ]);
    const runcMs = figure(`${what}, with runc`, 'ms', [meanMs(before.runc, after.runc)]);
    figures.push(oursMs, runcMs);
    ratios.push(ratio(oursMs, runcMs));
    await cluster.clear();
  }
  figures.push(figure('adaptor, no pods, PSS', 'MiB', [idleAdaptor]));
  return { figures, ratios, notes };
}

/** The whole, and each stage in the order of the first pod's. */
function startFigures(name: string, { milliseconds, sandboxes }: StartedPods): Figure[] {
  const stages: readonly (readonly [StageRecord['stage'], string?])[] = [
    ['network', 'host'],
    ['creating-vm'],
    ['booting'],
    ['booting', 'firmware'],
    ['booting', 'kernel'],
    ['booting', 'init'],
    ['booting', 'agent'],
    ['network', 'guest'],
    ['pulling'],
    ['starting'],
  ];
  const whole = figure(`${name}, until Running`, 'ms', milliseconds);
  return [
    whole,
    ...stages.flatMap(([stage, part]) => {
      const samples = sandboxes.flatMap((sandbox) =>
        sandbox.stages
          .filter((one) => one.stage === stage && one.part === part)
          .map(({ durationMs = Number.NaN }) => durationMs),
      );
      const label = part === undefined ? stage : `${stage}/${part}`;
      return samples.length === 0 ? [] : [figure(`  ${name}, ${label}`, 'ms', samples)];
    }),
  ];
}

function stageMs({ stages }: SandboxStatus, stage: StageRecord['stage']): number {
  return stages.find((one) => one.stage === stage && one.part === undefined)?.durationMs ?? Number.NaN;
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
}

function meanMs(before: SandboxSeconds, after: SandboxSeconds): number {
  return ((after.sum - before.sum) / (after.count - before.count)) * 1000;
}
