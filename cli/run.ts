import { asSealpodError, type SealpodError } from '@sealpod/protocol/errors';
import { CommanderError } from 'commander';
import { createProgram } from './program.ts';
import { describeError, errorAsJson } from './terminal/output.ts';

/** Exit codes: 0 done, 1 refused or failed, 2 used wrongly or something missing. */
const usageCodes = new Set(['USAGE', 'PREREQUISITE', 'RES_NAME']);

/** Runs one command line (without the name of the program) and sets `process.exitCode`; never throws. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const program = createProgram();
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      process.exitCode = thrown.exitCode === 0 ? 0 : 2;
      return;
    }
    const error: SealpodError = asSealpodError(thrown);
    process.stderr.write(program.opts()['output'] === 'json' ? errorAsJson(error) : describeError(error));
    if (error.code === 'INTERNAL' && process.env['SEALPOD_DEBUG'] !== undefined) console.error(thrown);
    process.exitCode = usageCodes.has(error.code) ? 2 : 1;
  }
}
