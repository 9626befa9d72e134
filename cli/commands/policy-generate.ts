import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { readText } from './context.ts';
import { addWorkloadOptions, transformWith, type WorkloadOptions } from './workload.ts';

/** `sealpod policy generate`. */
export function addPolicyGenerateCommand(policy: Command): void {
  const command = policy
    .command('generate')
    .description('write agent policy, image pins and initdata into manifests')
    .requiredOption('-f, --file <file>', 'manifests (YAML), - for standard input')
    .option('--print-policy', 'print the policies alone, not the manifests')
    .addHelpText(
      'after',
      '\nExample:\n  sealpod policy generate -f web.yaml --guest-kbs-url https://kbs.example:8080 > web-sealed.yaml',
    )
    .action(async (options: WorkloadOptions & { file: string; printPolicy?: boolean }) => {
      const { text, workloads } = await transformWith(readText(options.file), options);
      if (workloads.length === 0) {
        throw new SealpodError('USAGE', 'no pod of these manifests runs in a machine of its own', {
          expected: `runtimeClassName ${options.runtimeClass.join(' or ')}`,
          fix: 'set runtimeClassName, or name another class with --runtime-class',
        });
      }
      process.stdout.write(options.printPolicy === true ? workloads.map((item) => item.policy).join('\n') : text);
    });
  addWorkloadOptions(command);
}
