import { openRemoteCommand } from '@sealpod/runtimeclass/cri/stream';
import type { Command } from 'commander';
import { requireState } from '../development/state.ts';
import { connectEnvironment } from '../pod/connect.ts';
import { findContainer } from '../pod/list.ts';
import { layoutFor } from './context.ts';

/** `sealpod exec`. */
export function addExecCommand(program: Command): void {
  program
    .command('exec')
    .description(
      'run a command in a container, where the measured policy of the pod allows it; exits as the command does',
    )
    .argument('<pod>')
    .argument('<command...>')
    .option('-i, --stdin', 'pass standard input on')
    .option('-t, --tty', 'give the command a terminal')
    .addHelpText('after', '\nExamples:\n  sealpod exec shell -- cat /message\n  sealpod exec -it shell -- sh')
    .action(
      async (name: string, args: readonly string[], options: { stdin?: boolean; tty?: boolean }, command: Command) => {
        const cri = connectEnvironment(requireState(layoutFor(command)));
        const tty = options.tty === true;
        const raw = tty && options.stdin === true && process.stdin.isTTY;
        try {
          const { url } = await cri.runtime.exec({
            containerId: await findContainer(cri, name),
            cmd: [...args],
            tty,
            // containerd 1.6 ends a terminal's output when its input ends, and a WebSocket without input ends at once.
            stdin: options.stdin === true || tty,
            stdout: true,
            stderr: !tty,
          });
          const remote = await openRemoteCommand(url, {
            ...(options.stdin === true ? { stdin: process.stdin } : {}),
            onStdout: (data) => process.stdout.write(data),
            onStderr: (data) => process.stderr.write(data),
          });
          const resize = (): void => remote.resize(process.stdout.columns, process.stdout.rows);
          if (tty && process.stdout.isTTY) {
            resize();
            process.stdout.on('resize', resize);
          }
          if (raw) process.stdin.setRawMode(true);
          process.exitCode = await remote.exitCode;
        } finally {
          if (raw) process.stdin.setRawMode(false);
          process.stdin.destroy();
          cri.close();
        }
      },
    );
}
