import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { ContainerState } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import type { Command } from 'commander';
import { requireState } from '../development/state.ts';
import { connectEnvironment } from '../pod/connect.ts';
import { findContainer } from '../pod/list.ts';
import { layoutFor } from './context.ts';

/** `sealpod logs`. */
export function addLogsCommand(program: Command): void {
  program
    .command('logs')
    .description("a container's output")
    .argument('<pod>')
    .option('-f, --follow', 'go on until the container ends')
    .addHelpText('after', '\nExample:\n  sealpod logs hello --follow')
    .action(async (name: string, options: { follow?: boolean }, command: Command) => {
      const cri = connectEnvironment(requireState(layoutFor(command)));
      try {
        const containerId = await findContainer(cri, name);
        const lines = new LogFile((await cri.runtime.containerStatus({ containerId })).status?.logPath ?? '');
        for (;;) {
          // Asked before the file is read: what the container wrote until then is in it.
          const { status } = await cri.runtime.containerStatus({ containerId });
          lines.print();
          if (options.follow !== true || status?.state !== ContainerState.CONTAINER_RUNNING) break;
          await delay(200);
        }
        lines.close();
      } finally {
        cri.close();
      }
    });
}

/** A log in CRI format, read as it grows: `<RFC 3339 time> <stdout|stderr> <F|P> <text>`, P for a line that goes on. */
class LogFile {
  readonly #path: string;
  #descriptor: number | undefined;
  #rest: Buffer = Buffer.alloc(0);

  constructor(path: string) {
    this.#path = path;
  }

  print(): void {
    if (this.#descriptor === undefined && existsSync(this.#path)) this.#descriptor = openSync(this.#path, 'r');
    if (this.#descriptor === undefined) return;
    const chunk = Buffer.alloc(64 * 1024);
    for (let size = readSync(this.#descriptor, chunk); size > 0; size = readSync(this.#descriptor, chunk)) {
      this.#rest = Buffer.concat([this.#rest, chunk.subarray(0, size)]);
      for (let end = this.#rest.indexOf(10); end >= 0; end = this.#rest.indexOf(10)) {
        printEntry(this.#rest.subarray(0, end));
        this.#rest = this.#rest.subarray(end + 1);
      }
    }
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
  }
}

function printEntry(line: Buffer): void {
  const stream = line.indexOf(32);
  const tag = line.indexOf(32, stream + 1);
  const text = line.indexOf(32, tag + 1);
  const partial = line.subarray(tag + 1, text).toString() === 'P';
  const target = line.subarray(stream + 1, tag).toString() === 'stderr' ? process.stderr : process.stdout;
  target.write(Buffer.concat([line.subarray(text + 1), Buffer.from(partial ? '' : '\n')]));
}
