import { restoreManifests } from '@sealpod/workload';
import type { Command } from 'commander';
import { readText } from './context.ts';
import { addWorkloadOptions, transformWith, type WorkloadOptions } from './workload.ts';

/** `sealpod transform`: a filter, as Helm's post-renderers are. */
export function addTransformCommand(program: Command): void {
  const command = program
    .command('transform')
    .description('read manifests on standard input, write them with agent policy, image pins and initdata')
    .option('--undo', 'take back what was written: images as they were named, no policy, no initdata of ours')
    .addHelpText(
      'after',
      '\nExamples:\n  helm template web ./chart | sealpod transform | kubectl apply -f -\n  kubectl sealpod transform < web.yaml\n  sealpod transform --undo < web-sealed.yaml',
    )
    .action(async (options: WorkloadOptions & { undo?: boolean }) => {
      const given = readText('-');
      const text = options.undo === true ? restoreManifests(given) : (await transformWith(given, options)).text;
      process.stdout.write(text);
    });
  addWorkloadOptions(command);
}
