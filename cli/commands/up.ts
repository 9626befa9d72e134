import type { Command } from 'commander';
import { demonstrate } from '../development/demonstration.ts';
import { enrolEnvironment } from '../development/enrolment.ts';
import { startEnvironment, stopEnvironment } from '../development/environment.ts';
import { Progress } from '../terminal/progress.ts';
import { kbsClientFor, layoutFor } from './context.ts';

/** `sealpod up`: the development environment, and the two acts that show what it is for. */
export function addUpCommand(program: Command): void {
  program
    .command('up')
    .description(
      'start a development environment and show a sealed pod, then the same pod refused on an altered machine',
    )
    .option('--once', 'end everything after the two acts')
    .option('--detach', 'leave everything running and return')
    .option('--no-demonstration', 'start the parts only')
    .addHelpText('after', '\nExamples:\n  sealpod up --once\n  sealpod up --detach --no-demonstration')
    .action(async (options: { once?: boolean; detach?: boolean; demonstration: boolean }, command: Command) => {
      const layout = layoutFor(command);
      const progress = new Progress();
      const interrupted = interruption();
      const work = async (): Promise<void> => {
        const { state, image } = await startEnvironment(layout, progress);
        const client = kbsClientFor(command);
        await progress.step('policies and reference values', () => enrolEnvironment(client, image));
        if (options.demonstration) await demonstrate(layout, state, client, progress);
        progress.say(`done after ${(progress.elapsed / 1000).toFixed(1)} s`);
      };
      let failed = true;
      try {
        await Promise.race([work(), interrupted.then(() => Promise.reject(new Interrupted()))]);
        failed = false;
        if (options.detach === true || options.once === true) return;
        progress.say('the environment runs; try `cli/bin/sealpod status` elsewhere. Ctrl-C ends it.');
        await interrupted;
      } catch (error) {
        if (!(error instanceof Interrupted)) throw error;
        process.exitCode = 130;
      } finally {
        if (failed || options.detach !== true) await progress.step('ending everything', () => stopEnvironment(layout));
      }
    });
}

class Interrupted extends Error {}

/** Resolves at the first SIGINT, SIGTERM or SIGHUP. Further ones are ignored: cleaning up must not be cut short. */
function interruption(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve());
  });
}
