import type { Command } from 'commander';
import { readText } from './context.ts';
import { addWorkloadOptions, transformWith, type WorkloadOptions } from './workload.ts';

/** `sealpod transform`: a filter, as Helm's post-renderers are. */
export function addTransformCommand(program: Command): void {
  const command = program
    .command('transform')
    .description('read manifests on standard input, write them with agent policy, image pins and initdata')
    .addHelpText(
      'after',
      '\nExamples:\n  helm template web ./chart | sealpod transform | kubectl apply -f -\n  kubectl sealpod transform < web.yaml',
    )
    .action(async (options: WorkloadOptions) => {
      const { text } = await transformWith(readText('-'), options);
      process.stdout.write(text);
    });
  addWorkloadOptions(command);
}
