import { existsSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { compareManifests } from '../cluster-install/changes.ts';
import { apiServerPorts, connectCluster, makeNamespace, sealedPods } from '../cluster-install/cluster.ts';
import {
  chartDirectory,
  helm,
  isInstalled,
  type ReleaseValues,
  releaseArguments,
  releaseName,
  type Target,
  targetArguments,
} from '../cluster-install/helm.ts';
import { imageAssignments } from '../cluster-install/images.ts';
import { writeResult } from '../terminal/output.ts';
import { Progress } from '../terminal/progress.ts';
import { globalOptions } from './context.ts';
import { authFileOption, registryAccess } from './registry-options.ts';

interface TargetOptions {
  readonly kubeconfig?: string;
  readonly namespace: string;
}

interface ReleaseOptions extends TargetOptions {
  readonly chart: string;
  readonly values: readonly string[];
  readonly set: readonly string[];
  readonly images?: string;
  readonly plainHttp?: boolean;
  readonly authFile?: string;
  readonly timeout: string;
}

const collect = (value: string, previous: readonly string[]): readonly string[] => [...previous, value];

/** Options by which a cluster is chosen. */
export function addTargetOptions(command: Command): Command {
  return command
    .option('--kubeconfig <file>', 'cluster and user (default: KUBECONFIG, ~/.kube/config)')
    .option('--namespace <name>', 'namespace of the release', 'sealpod-system');
}

function addReleaseOptions(command: Command): Command {
  return addTargetOptions(command)
    .option('--chart <directory>', 'chart other than that of this release', chartDirectory)
    .option('--values <file>', 'values of the chart; may be repeated', collect, [])
    .option('--set <key=value>', 'one value of the chart; may be repeated', collect, [])
    .option('--images <prefix>', 'registry and prefix with the images; they are named by digest')
    .option('--plain-http', 'speak plain HTTP to that registry')
    .option(...authFileOption)
    .option('--timeout <duration>', 'how long to wait until everything is ready', '10m');
}

const targetOf = ({ kubeconfig, namespace }: TargetOptions): Target => ({
  namespace,
  ...(kubeconfig === undefined ? {} : { kubeconfig }),
});

async function valuesOf(options: ReleaseOptions): Promise<ReleaseValues> {
  if (!existsSync(options.chart))
    throw new SealpodError('NOT_FOUND', `there is no chart in ${options.chart}`, { fix: 'name one with --chart' });
  const images =
    options.images === undefined
      ? []
      : await imageAssignments(options.images, (registry) =>
          registryAccess(options.plainHttp === true ? [registry] : [], options.authFile),
        );
  return {
    chart: options.chart,
    values: options.values,
    set: [...(await portsOf(options)), ...images, ...options.set],
  };
}

/** Where the API server listens at a port that the chart's network policies would not let through, that port too. */
async function portsOf(options: ReleaseOptions): Promise<readonly string[]> {
  const usual = [443, 6443];
  const others = (await apiServerPorts(connectCluster(options))).filter((port) => !usual.includes(port));
  return others.length === 0 ? [] : [`networkPolicies.apiServerPorts={${[...usual, ...others].join(',')}}`];
}

/** `sealpod install|uninstall` and `sealpod upgrade check|apply`: Helm's chart, with what Helm does not know. */
export function addInstallCommands(program: Command): void {
  addReleaseOptions(program.command('install'))
    .description('install sealpod into a Kubernetes, or bring what is installed to this release')
    .addHelpText('after', '\nExample:\n  sealpod install --images registry.example/sealpod --values values.yaml')
    .action(async (options: ReleaseOptions) => {
      const progress = new Progress();
      const values = await progress.step('images', () => valuesOf(options));
      await makeNamespace(connectCluster(options), options.namespace);
      await progress.step('chart', () => upgrade(targetOf(options), values, options.timeout));
      progress.say('label a pod with `runtimeClassName: sealpod`; `sealpod doctor --cluster` says what does not work');
    });
  addTargetOptions(program.command('uninstall'))
    .description('take sealpod off a Kubernetes and its nodes; refused by nodes on which sealed pods run')
    .option('--purge', 'also delete the resource definitions, with all resources of them, and the namespace')
    .option('--timeout <duration>', 'how long to wait', '10m')
    .addHelpText('after', '\nExample:\n  sealpod uninstall --purge')
    .action(async (options: TargetOptions & { purge?: boolean; timeout: string }) => {
      await uninstall(targetOf(options), options);
    });
  const command = program.command('upgrade').description('bring an installed sealpod to this release');
  addReleaseOptions(command.command('check'))
    .description('say what would change, and whether running pods are affected; changes nothing')
    .addHelpText('after', '\nExample:\n  sealpod upgrade check --images registry.example/sealpod')
    .action(async (options: ReleaseOptions, self: Command) => {
      await requireInstalled(targetOf(options));
      const changes = await changesOf(targetOf(options), await valuesOf(options));
      const pods = await sealedPods(connectCluster(options));
      const rows = changes.map(({ change, object, fields, effect }) => [
        change,
        object,
        fields.length > 3 ? `${fields.slice(0, 3).join(', ')} and ${fields.length - 3} more` : fields.join(', '),
        effect,
      ]);
      const summary = `${pods.length} sealed pods run on ${new Set(pods.map(({ node }) => node)).size} nodes; none is restarted: each keeps the programs it was started with`;
      writeResult(
        globalOptions(self).output,
        { changes, sealedPods: pods, affected: 0 },
        ['change', 'object', 'fields', 'effect'],
        rows,
      );
      if (globalOptions(self).output === 'table') process.stdout.write(`${summary}\n`);
    });
  addReleaseOptions(command.command('apply'))
    .description('do it, and make sure that no sealed pod was restarted')
    .addHelpText('after', '\nExample:\n  sealpod upgrade apply --images registry.example/sealpod')
    .action(async (options: ReleaseOptions) => {
      const progress = new Progress();
      const target = targetOf(options);
      await requireInstalled(target);
      const cluster = connectCluster(options);
      const before = await sealedPods(cluster);
      const values = await progress.step('images', () => valuesOf(options));
      await progress.step('chart', () => upgrade(target, values, options.timeout));
      const after = new Map((await sealedPods(cluster)).map((pod) => [pod.uid, pod]));
      const restarted = before.filter(({ uid, restarts }) => {
        const now = after.get(uid);
        return now !== undefined && now.restarts > restarts;
      });
      if (restarted.length > 0) {
        throw new SealpodError('CLUSTER', 'sealed pods were restarted during the upgrade', {
          expected: 'none',
          actual: restarted.map(({ name }) => name).join(', '),
          fix: 'see their events; `helm rollback sealpod` brings the earlier release back',
        });
      }
      progress.say(`${before.length} sealed pods ran before, and none of them was restarted`);
    });
}

async function upgrade(target: Target, values: ReleaseValues, timeout: string): Promise<void> {
  await helm([
    ...['upgrade', '--install', ...releaseArguments(values), ...targetArguments(target), '--create-namespace'],
    ...['--wait', '--timeout', timeout],
  ]);
}

/** Objects of what is installed against those that would be. */
async function changesOf(target: Target, values: ReleaseValues) {
  const installed = await helm(['get', 'manifest', releaseName, ...targetArguments(target)]);
  const rendered = await helm(['template', ...releaseArguments(values), ...targetArguments(target), '--no-hooks']);
  return compareManifests(installed, rendered);
}

async function requireInstalled(target: Target): Promise<void> {
  if (await isInstalled(target)) return;
  throw new SealpodError('NOT_FOUND', `sealpod is not installed in the namespace ${target.namespace}`, {
    fix: 'install it with `sealpod install`, or name the namespace of its release',
  });
}

async function uninstall(target: Target, options: { purge?: boolean; timeout: string }): Promise<void> {
  const progress = new Progress();
  if (await isInstalled(target)) {
    await progress.step('chart and nodes', () =>
      helm(['uninstall', releaseName, ...targetArguments(target), '--wait', '--timeout', options.timeout]),
    );
  } else if (options.purge !== true) await requireInstalled(target);
  if (options.purge !== true) return;
  const { core, definitions } = connectCluster(target);
  await progress.step('resource definitions and namespace', async () => {
    const { items } = await definitions.listCustomResourceDefinition();
    for (const { metadata } of items) {
      if (metadata?.name?.endsWith('.sealpod.io') === true)
        await definitions.deleteCustomResourceDefinition({ name: metadata.name });
    }
    const { items: namespaces } = await core.listNamespace();
    if (namespaces.some(({ metadata }) => metadata?.name === target.namespace))
      await core.deleteNamespace({ name: target.namespace });
  });
}
