import { isRunning } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { type EnvironmentState, requireState } from '../development/state.ts';
import { tellStatus } from '../development/status.ts';
import { connectEnvironment, runs } from '../pod/connect.ts';
import { listPods, type PodDescription } from '../pod/list.ts';
import { type BrokerVerdict, type PodStatus, tellPodStatus, verdictOf } from '../pod/status.ts';
import { globalOptions, kbsClientFor, layoutFor } from './context.ts';
import { decisionsOf } from './explain.ts';
import { readStarts } from './pod-starts.ts';

/** `sealpod status`. */
export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('the environment, its parts and its pods; exits 1 where a part has ended')
    .option(
      '--pods',
      'each pod instead: its VM, the measured image, the verdict of the key broker, the stages of its start',
    )
    .option('--kubeconfig <file>', 'with --pods: the pods of a cluster, by their events')
    .option('--namespace <name>', 'with --pods: those of one namespace only')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod status -o json\n  sealpod status --pods\n  sealpod status --pods --kubeconfig admin.conf --namespace shop',
    )
    .action(async (options: { pods?: boolean; kubeconfig?: string; namespace?: string }, command: Command) => {
      if (options.pods === true) {
        tellPodStatus(globalOptions(command).output, await podStatus(command));
        return;
      }
      if (options.kubeconfig !== undefined || options.namespace !== undefined)
        throw new SealpodError('USAGE', '--kubeconfig and --namespace go with --pods');
      const state = requireState(layoutFor(command));
      const pods = runs(state, 'containerd') ? await podsOf(state) : undefined;
      tellStatus(globalOptions(command).output, state, pods);
      const dead = state.daemons.filter((daemon) => !isRunning(daemon)).map(({ name }) => name);
      if (dead.length === 0) return;
      throw new SealpodError('NOT_FOUND', 'parts of the environment have ended', {
        expected: 'every part running',
        actual: `ended: ${dead.join(', ')}`,
        fix: 'see their logs in the folder `logs` of the environment; start everything again with `sealpod up`',
      });
    });
}

async function podStatus(command: Command): Promise<readonly PodStatus[]> {
  const starts = await readStarts(command);
  return Promise.all(
    starts.map(async (start) => ({ ...start, verdict: await verdictFor(command, start.correlationId) })),
  );
}

/** What the key broker decided about a pod's guest; why it could not be asked, where it could not. */
async function verdictFor(command: Command, correlationId: string | undefined): Promise<BrokerVerdict> {
  if (correlationId === undefined) return { outcome: 'not attested' };
  try {
    return verdictOf(await decisionsOf(kbsClientFor(command), correlationId));
  } catch (error) {
    if (!(error instanceof SealpodError)) throw error;
    return { outcome: 'unknown', reason: `${error.code}: ${error.message}` };
  }
}

async function podsOf(state: EnvironmentState): Promise<PodDescription[]> {
  const cri = connectEnvironment(state);
  try {
    return await listPods(cri);
  } finally {
    cri.close();
  }
}
