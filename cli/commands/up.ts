import { once } from 'node:events';
import type { Command } from 'commander';
import { demonstrate } from '../development/demonstration.ts';
import { enrolEnvironment } from '../development/enrolment.ts';
import {
  abandonEnvironment,
  type EnvironmentOptions,
  startEnvironment,
  stopEnvironment,
} from '../development/environment.ts';
import { Progress } from '../terminal/progress.ts';
import { kbsClientFor, layoutFor, templateOption } from './context.ts';

/** What a shell reports of a program that Ctrl-C ended. */
const interruptedExitCode = 130;

interface UpOptions extends EnvironmentOptions {
  readonly once?: boolean;
  readonly detach?: boolean;
  readonly demonstration: boolean;
}

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
    .addOption(templateOption())
    .addHelpText(
      'after',
      '\nCtrl-C ends everything that runs, also halfway, and exits 130.' +
        '\n\nExamples:\n  sealpod up --once\n  sealpod up --detach --no-demonstration',
    )
    .action(async (options: UpOptions, command: Command) => {
      const layout = layoutFor(command);
      const interrupted = interruption();
      const progress = new Progress(interrupted);
      const begin = async (): Promise<void> => {
        const { state, image } = await startEnvironment(layout, progress, options);
        const client = kbsClientFor(command);
        await progress.step('policies and reference values', () => enrolEnvironment(client, image, options));
        if (options.demonstration) await demonstrate(layout, state, client, progress);
        progress.say(`done after ${(progress.elapsed / 1000).toFixed(1)} s`);
      };
      const ending = new Progress();
      const work = begin();
      try {
        await Promise.race([work, aborted(interrupted)]);
        if (!interrupted.aborted && options.detach === true) return;
        if (!interrupted.aborted && options.once !== true) {
          progress.say('the environment runs; try `cli/bin/sealpod status` elsewhere. Ctrl-C ends it.');
          // Waiting for a signal keeps no process alive by itself.
          const alive = setInterval(() => undefined, 1 << 30);
          await aborted(interrupted);
          clearInterval(alive);
        }
      } catch (error) {
        if (!interrupted.aborted) {
          await ending.step('ending everything', () => stopEnvironment(layout));
          throw error;
        }
      }
      if (interrupted.aborted) process.exitCode = interruptedExitCode;
      await ending.step('ending everything', () =>
        interrupted.aborted ? abandonEnvironment(layout, work) : stopEnvironment(layout),
      );
    });
}

/** Aborts at the first SIGINT, SIGTERM or SIGHUP. Further ones are ignored: cleaning up must not be cut short. */
function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => controller.abort(new Error(`interrupted by ${signal}`)));
  return controller.signal;
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}
