import type { Command } from 'commander';
import { stopEnvironment } from '../development/environment.ts';
import { Progress } from '../terminal/progress.ts';
import { endCluster } from './cluster.ts';
import { layoutFor } from './context.ts';

/** `sealpod down`. */
export function addDownCommand(program: Command): void {
  program
    .command('down')
    .description(
      'end the development environment and everything it started, however it came to be left; keys and images stay',
    )
    .addHelpText('after', '\nExample:\n  sealpod down')
    .action(async (_options: unknown, command: Command) => {
      await new Progress().step('ending everything', async () => {
        // Its pods run in machines of the environment.
        await endCluster(layoutFor(command));
        await stopEnvironment(layoutFor(command));
      });
    });
}
