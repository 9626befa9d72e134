import { existsSync, rmSync } from 'node:fs';
import {
  buildClusterPrograms,
  clusterStatus,
  newestRelease,
  readClusterState,
  releaseOf,
  releases,
  restartContainerd,
  startCluster,
  stopCluster,
} from '@sealpod/cluster';
import { isRunning } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { type Command, Option } from 'commander';
import { enrolEnvironment } from '../development/enrolment.ts';
import { type EnvironmentOptions, startEnvironment } from '../development/environment.ts';
import type { Layout } from '../development/layout.ts';
import { type EnvironmentState, readState } from '../development/state.ts';
import { stopWithInstallation, writeInstallationFiles } from '../kubernetes/installation.ts';
import { clusterDirectory, clusterRuntimeDirectory } from '../kubernetes/layout.ts';
import { installIntoCluster } from '../kubernetes/runtime.ts';
import { installStorage } from '../kubernetes/storage.ts';
import { clusterNeeds, installCommand, missing } from '../setup/needs.mjs';
import { writeResult } from '../terminal/output.ts';
import { Progress } from '../terminal/progress.ts';
import { globalOptions, kbsClientFor, layoutFor, templateOption } from './context.ts';

interface ClusterUpOptions extends EnvironmentOptions {
  readonly withRuntime?: boolean;
  readonly kubernetes: string;
  readonly machines: string;
}

/** `sealpod cluster up|down|status|restart-containerd`: a disposable Kubernetes of one node, without a container engine. */
export function addClusterCommands(program: Command): void {
  const cluster = program
    .command('cluster')
    .description('a disposable Kubernetes of one node for development, without a container engine');
  cluster
    .command('up')
    .description('start it; builds its programs first, once, with Go 1.26 or newer (1.1 GB of modules, 9 minutes)')
    .option('--with-runtime', 'install the runtime: pods with `runtimeClassName: sealpod` run in machines of their own')
    .addOption(
      new Option('--kubernetes <version>', 'version of Kubernetes')
        .choices(releases.map(({ kubernetes }) => kubernetes))
        .default(newestRelease.kubernetes),
    )
    .addOption(templateOption())
    .option('--machines <count>', 'how many machines the node offers as sealpod.io/vm', '10')
    .addHelpText('after', '\nExamples:\n  sealpod cluster up\n  sealpod cluster up --with-runtime --kubernetes 1.36')
    .action(async (options: ClusterUpOptions, command: Command) => {
      const release = releaseOf(options.kubernetes);
      const machines = Number(options.machines);
      if (!Number.isSafeInteger(machines) || machines < 0)
        throw new SealpodError('USAGE', '--machines must be a number of machines', { actual: options.machines });
      const layout = layoutFor(command);
      const progress = new Progress();
      requireClusterNeeds();
      const step = <T>(name: string, run: () => Promise<T> | T): Promise<T> => progress.step(name, run);
      const programs = await step('programs of the cluster', () =>
        buildClusterPrograms(layout.cache, (line) => progress.say(`  ${line}`), release),
      );
      const environment =
        options.withRuntime === true ? await ensureEnvironment(layout, progress, command, options) : undefined;
      await endCluster(layout);
      const state = await startCluster(clusterDirectory(layout), programs, step, release);
      await step('storage', () => installStorage(layout, state));
      if (environment !== undefined)
        await step('runtime in the cluster', () => installIntoCluster(layout, environment, state, machines));
      const values = writeInstallationFiles(layout, state);
      progress.say(`registry at ${state.registry}. To use the cluster:`);
      progress.say(`  export KUBECONFIG=${state.kubeconfig} PATH=${state.programs}:$PATH`);
      progress.say(`  sealpod install --values ${values} --images REGISTRY/PREFIX`);
    });
  cluster
    .command('restart-containerd')
    .description('restart containerd, which then reads its configuration again; pods go on')
    .addHelpText('after', '\nExample:\n  sealpod cluster restart-containerd')
    .action(async (_options: unknown, command: Command) => {
      await new Progress().step('containerd', () => restartContainerd(clusterDirectory(layoutFor(command))));
    });
  cluster
    .command('down')
    .description('end it with all its pods, and remove everything it left')
    .addHelpText('after', '\nExample:\n  sealpod cluster down')
    .action(async (_options: unknown, command: Command) => {
      const layout = layoutFor(command);
      await new Progress().step('ending the cluster', () => endCluster(layout));
    });
  cluster
    .command('status')
    .description('the programs of the cluster and whether they run; exits 1 where one does not')
    .addHelpText('after', '\nExample:\n  sealpod cluster status -o json')
    .action((_options: unknown, command: Command) => {
      const directory = clusterDirectory(layoutFor(command));
      const status = clusterStatus(directory);
      writeResult(
        globalOptions(command).output,
        { ...status, registry: readClusterState(directory)?.registry },
        ['program', 'state'],
        status.daemons.map(({ name, running }) => [name, running ? 'running' : 'DEAD']),
      );
      if (status.running) return;
      const dead = status.daemons.filter(({ running }) => !running).map(({ name }) => name);
      throw new SealpodError('NOT_FOUND', 'the cluster does not run', {
        expected: 'every program running',
        actual: dead.length === 0 ? 'no cluster' : `ended: ${dead.join(', ')}`,
        fix: 'start it (again) with `sealpod cluster up`',
      });
    });
}

/** Ends the cluster of an environment, and removes the runtime in it. Does nothing where there is none. */
export async function endCluster(layout: Layout): Promise<void> {
  if (!existsSync(clusterDirectory(layout))) return;
  await stopWithInstallation(layout, () => stopCluster(clusterDirectory(layout)));
  rmSync(clusterRuntimeDirectory(layout), { recursive: true, force: true });
}

function requireClusterNeeds(): void {
  const absent = missing(clusterNeeds);
  if (absent.length === 0) return;
  throw new SealpodError('PREREQUISITE', 'programs that the cluster needs are missing', {
    expected: clusterNeeds.map((need) => need.name).join(', '),
    actual: `missing: ${absent.map((need) => `${need.name} (${need.why})`).join(', ')}`,
    fix: installCommand(absent),
  });
}

/** The running environment, else a new one: key broker, registry and adaptor are what the runtime's guests talk to. */
async function ensureEnvironment(
  layout: Layout,
  progress: Progress,
  command: Command,
  options: EnvironmentOptions,
): Promise<EnvironmentState> {
  const present = readState(layout);
  if (present !== undefined && present.daemons.length > 0 && present.daemons.every(isRunning)) return present;
  const { state, image } = await startEnvironment(layout, progress, options);
  await progress.step('policies and reference values', () => enrolEnvironment(kbsClientFor(command), image, options));
  return state;
}
