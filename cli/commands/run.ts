import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { requireState } from '../development/state.ts';
import { connectEnvironment } from '../pod/connect.ts';
import { resolveImage } from '../pod/image.ts';
import { removePodNamed } from '../pod/list.ts';
import { enrolInitdata, initdataOf, type PodRequest, runPod, variable } from '../pod/run.ts';
import { writeResult } from '../terminal/output.ts';
import { Progress } from '../terminal/progress.ts';
import { globalOptions, kbsClientFor, layoutFor, readText } from './context.ts';

interface RunOptions {
  readonly name?: string;
  readonly env: readonly string[];
  readonly allowExec?: boolean;
  readonly memory?: string;
  readonly vcpus?: string;
  readonly podVmImage?: string;
  readonly enrol: boolean;
}

const podNamePattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

function count(text: string | undefined, what: string, minimum: number, maximum: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
  throw new SealpodError('USAGE', `not a value for ${what}`, {
    expected: `an integer from ${minimum} to ${maximum}`,
    actual: text,
  });
}

/** `sealpod run` and `sealpod remove`. */
export function addRunCommands(program: Command): void {
  program
    .command('run')
    .description('run a pod in a virtual machine of its own, through the container runtime interface')
    .argument('<image>', 'image reference; without a registry host, one of the environment')
    .argument('[command...]', 'command instead of that of the image')
    .option('--name <name>', 'name of the pod (default: the last part of the image name)')
    .option('--env <name=value...>', 'environment variables', [])
    .option('--allow-exec', 'let the host run further commands in the container (part of the measured policy)')
    .option('--memory <MiB>', 'memory of the machine')
    .option('--vcpus <count>', 'virtual processors of the machine')
    .option('--pod-vm-image <name>', 'pod VM image of the environment to boot (default or altered)')
    .option('--no-enrol', 'do not register the digest of the initdata: the key broker will then refuse secrets')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod run sealed/hello:1\n  sealpod run sealed/hello:1 --name shell --allow-exec -- sleep 600',
    )
    .action(async (reference: string, args: readonly string[], options: RunOptions, command: Command) => {
      const layout = layoutFor(command);
      const state = requireState(layout);
      const name = options.name ?? /([^/:@]+)(?:[:@][^/]*)?$/.exec(reference)?.[1] ?? '';
      if (!podNamePattern.test(name)) {
        throw new SealpodError('USAGE', 'not a pod name', {
          expected: 'lower-case letters, digits and dashes, at most 63',
          actual: name,
        });
      }
      for (const text of options.env) variable(text);
      const memoryMiB = count(options.memory, '--memory', 128, 1 << 20);
      const vcpus = count(options.vcpus, '--vcpus', 1, 256);
      const progress = new Progress();
      const image = await progress.step('image reference', () => resolveImage(state, reference));
      const request: PodRequest = {
        name,
        image: image.reference,
        args: args.length > 0 ? args : image.command,
        environment: options.env,
        allowExec: options.allowExec === true,
        kbsUrl: state.kbsUrl ?? '',
        kbsCertificatePem: readText(state.kbsCertificateFile ?? ''),
        ...(memoryMiB === undefined ? {} : { memoryMiB }),
        ...(vcpus === undefined ? {} : { vcpus }),
        ...(options.podVmImage === undefined ? {} : { podVmImage: options.podVmImage }),
      };
      const initdata = initdataOf(request);
      if (options.enrol)
        await progress.step('initdata digest enrolled', () => enrolInitdata(kbsClientFor(command), initdata));
      const cri = connectEnvironment(state);
      try {
        const pod = await runPod(cri, layout, state, request, initdata, (stage, run) => progress.step(stage, run));
        const result = {
          name,
          sandboxId: pod.sandboxId,
          containerId: pod.containerId,
          image: image.reference,
          stages: progress.durations,
        };
        writeResult(
          globalOptions(command).output,
          result,
          ['pod', 'sandbox', 'image'],
          [[name, pod.sandboxId.slice(0, 12), image.reference]],
        );
      } finally {
        cri.close();
      }
    });

  program
    .command('remove')
    .description('stop a pod and its machine')
    .argument('<pod>')
    .addHelpText('after', '\nExample:\n  sealpod remove hello')
    .action(async (name: string, _options: unknown, command: Command) => {
      const cri = connectEnvironment(requireState(layoutFor(command)));
      try {
        await removePodNamed(cri, name);
        writeResult(globalOptions(command).output, { removed: name }, ['removed'], [[name]]);
      } finally {
        cri.close();
      }
    });
}
