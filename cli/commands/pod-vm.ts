import { join, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import { connectCluster } from '../cluster-install/cluster.ts';
import { tpmRootsOf } from '../cluster-install/tpm-roots.ts';
import { buildImage, imagesDirectory, measureImage } from '../development/pod-vm-image.ts';
import { writeResult } from '../terminal/output.ts';
import { Progress } from '../terminal/progress.ts';
import { globalOptions, layoutFor } from './context.ts';

function parseShape(text: string): { readonly vcpus: number; readonly memoryMiB: number } {
  const [, vcpus, memoryMiB] = /^([1-9]\d{0,2})x([1-9]\d{2,6})$/.exec(text) ?? [];
  if (vcpus !== undefined && memoryMiB !== undefined) return { vcpus: Number(vcpus), memoryMiB: Number(memoryMiB) };
  throw new SealpodError('USAGE', 'not a shape of machine', {
    expected: 'processors and MiB, e.g. 2x2048',
    actual: text,
  });
}

/** `sealpod podvm build|measure|tpm-roots`. */
export function addPodVmCommands(program: Command): void {
  const podvm = program.command('podvm').description('the image that pod VMs boot');

  podvm
    .command('build')
    .description(
      'build the image; equal inputs give equal bytes, and nothing is done where nothing changed. Needs no root',
    )
    .option('--directory <directory>', 'where it goes (default: the image of the development environment)')
    .addHelpText('after', '\nExample:\n  sealpod podvm build --directory ./pod-vm')
    .action(async (options: { directory?: string }, command: Command) => {
      const layout = layoutFor(command);
      const directory = resolve(options.directory ?? join(imagesDirectory(layout), 'default'));
      const progress = new Progress();
      const image = await progress.step('build', () =>
        buildImage(directory, layout.cache, (step) => progress.say(`                 ${step}`)),
      );
      writeResult(globalOptions(command).output, { directory, image }, ['image', 'directory'], [[image, directory]]);
    });

  podvm
    .command('measure')
    .description('compute what a machine that boots the image measures, and write reference-values.json beside it')
    .option('--directory <directory>', 'folder of the image (default: the image of the development environment)')
    .option('--shape <vcpusxMiB...>', 'shapes of machine to accept, e.g. 1x512 2x2048; the firmware measures them')
    .addHelpText(
      'after',
      '\nExample:\n  sealpod podvm measure --directory ./pod-vm && sealpod refvalue put --file ./pod-vm/reference-values.json',
    )
    .action(async (options: { directory?: string; shape?: readonly string[] }, command: Command) => {
      const layout = layoutFor(command);
      const directory = resolve(options.directory ?? join(imagesDirectory(layout), 'default'));
      const measured = await measureImage(directory, layout.cache, options.shape?.map(parseShape));
      const rows = Object.entries(measured.referenceValues.reference_values).map(([id, value]) => [
        id,
        JSON.stringify(value),
      ]);
      writeResult(globalOptions(command).output, measured.referenceValues, ['reference value', 'expected'], rows);
    });

  podvm
    .command('tpm-roots')
    .description(
      'print the authorities of the software TPMs of a cluster, as `tpmRoots` of a TrustService or `roots` of a key broker takes them; for development: they prove nothing',
    )
    .option('--kubeconfig <file>', 'which cluster (default: KUBECONFIG, ~/.kube/config)')
    .addHelpText('after', '\nExample:\n  sealpod podvm tpm-roots >> trust-service.yaml')
    .action(async (options: { kubeconfig?: string }, command: Command) => {
      const tpmRoots = await tpmRootsOf(connectCluster(options));
      const json = globalOptions(command).output === 'json';
      process.stdout.write(json ? `${JSON.stringify(tpmRoots, null, 2)}\n` : stringify({ tpmRoots }));
    });
}
