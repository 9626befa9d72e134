import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createTpmAuthority, removeAbandonedWork, temporaryWork } from '@sealpod/peer-pods/pod-vm';
import { type Daemon, isRunning, killDescendants, stopDaemon } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { pushSandboxImage } from '../image/environment.ts';
import type { Progress } from '../terminal/progress.ts';
import { removeAllMachines, startAdaptor } from './adaptor.ts';
import { startContainerd, startSnapshotter } from './containerd.ts';
import { startKbs } from './kbs.ts';
import type { Layout } from './layout.ts';
import { chooseNetwork, createBridge, freePort, removeBridge } from './network.ts';
import {
  alterImage,
  buildImage,
  imagesDirectory,
  type MeasuredImage,
  makeTemplateImage,
  measureImage,
  templateImage,
  tpmAuthorityDirectory,
} from './pod-vm-image.ts';
import { startRegistry } from './registry.ts';
import { bundleRuntime } from './runtime.ts';
import { type EnvironmentState, readState, writeState } from './state.ts';
import { findDaemons, removeNetworkResults, removePods, removeShimsAndMounts } from './traces.ts';

export interface EnvironmentOptions {
  /** Whether pods' machines are cloned from one that is booted once; their evidence says so. */
  readonly template: boolean;
}

/**
 * Starts everything a pod needs on this machine: key broker, registry, adaptor, snapshotter, containerd. What an earlier
 * run left, however it ended, is removed first.
 *
 * @throws SealpodError where a part does not start; what was started is ended again
 */
export async function startEnvironment(
  layout: Layout,
  progress: Progress,
  { template }: EnvironmentOptions,
): Promise<{ state: EnvironmentState; image: MeasuredImage }> {
  if (process.getuid?.() !== 0) {
    throw new SealpodError('PREREQUISITE', 'a development environment needs root', { fix: 'run the command as root' });
  }
  const previous = readState(layout);
  await stopEnvironment(layout);
  for (const directory of [layout.home, layout.run, layout.cache])
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  // The unprivileged user that runs virtual machines has to reach the images below this folder, and nothing else in it.
  const network = chooseNetwork(layout, previous);
  const daemons: Daemon[] = [];
  let state: EnvironmentState = { ...network, daemons };
  const record = (more: Partial<EnvironmentState>, ...added: readonly Daemon[]): void => {
    daemons.push(...added);
    state = { ...state, ...more, daemons: [...daemons] };
    writeState(layout, state);
  };
  record({ template });
  try {
    const { configurationDirectory } = createBridge(layout, network);
    const [image, kbs] = await allOrFirstFailure([
      prepareImages(layout, progress, template),
      progress.step('key broker', async () => {
        const authority = await createTpmAuthority(tpmAuthorityDirectory(layout));
        const certificates = await authority.certificates();
        const root = { name: 'local-software-tpm', certificateFiles: [certificates.root, certificates.issuer] };
        const port = await freePort(network.address, portOf(previous?.kbsUrl));
        const running = await startKbs(layout, network.address, port, root);
        record({ kbsUrl: running.url, kbsCertificateFile: running.certificateFile }, running.daemon);
        return running;
      }),
      progress.step('registry', async () => {
        const port = await freePort(network.address, portOf(previous?.registry && `http://${previous.registry}`));
        record({ registry: `${network.address}:${port}` }, await startRegistry(layout, network.address, port));
      }),
    ]);
    progress.say(`               key broker at ${kbs.url}, registry at ${state.registry}`);
    await progress.step('adaptor', async () => {
      const adaptor = await startAdaptor(layout, template);
      record({ adaptorSocket: adaptor.socket }, adaptor.daemon);
    });
    const sandboxImage = 'sealpod/sandbox:1';
    await progress.step('containerd', async () => {
      await pushSandboxImage(state, sandboxImage);
      const runtime = await bundleRuntime(layout);
      const snapshotter = await startSnapshotter(layout, runtime);
      record({}, snapshotter.daemon);
      const containerd = await startContainerd(layout, runtime, {
        registry: state.registry ?? '',
        sandboxImage: `${state.registry}/${sandboxImage}`,
        snapshotterSocket: snapshotter.socket,
        cniConfigurationDirectory: configurationDirectory,
        adaptorSocket: state.adaptorSocket ?? '',
      });
      record({ containerdSocket: containerd.socket }, containerd.daemon);
      // Where it was killed it still remembers pods whose machines are gone.
      await tellProblems(removePods(state));
    });
    return { state, image };
  } catch (error) {
    // Whoever interrupted ends everything himself.
    if (!progress.interrupted) await stopEnvironment(layout);
    throw error;
  }
}

/** As Promise.all, but waits for the others too: what they start must be known before it can be ended. */
async function allOrFirstFailure<const T extends readonly Promise<unknown>[]>(
  tasks: T,
): Promise<{ -readonly [P in keyof T]: Awaited<T[P]> }> {
  await Promise.allSettled(tasks);
  return Promise.all(tasks);
}

async function prepareImages(layout: Layout, progress: Progress, template: boolean): Promise<MeasuredImage> {
  const directory = join(imagesDirectory(layout), 'default');
  await progress.step(
    'pod VM image',
    () => buildImage(directory, layout.cache, () => undefined),
    (image) => image.slice(0, 19),
  );
  const booted = template ? join(imagesDirectory(layout), templateImage) : directory;
  if (template) await progress.step('copy of the image for templates', () => makeTemplateImage(directory, booted));
  const measured = await progress.step('measurements', () => measureImage(booted, layout.cache));
  await progress.step('altered copy of the image', () =>
    alterImage(directory, join(imagesDirectory(layout), 'altered')),
  );
  return measured;
}

function portOf(url: string | undefined): number | undefined {
  const port = url === undefined || url === '' ? '' : new URL(url).port;
  return port === '' ? undefined : Number(port);
}

/**
 * Ends an environment whose `work` (its start, a pod's start) was interrupted and may still begin things: programs that
 * it runs are killed, daemons ended, and what it began meanwhile too.
 */
export async function abandonEnvironment(layout: Layout, work: Promise<unknown>): Promise<void> {
  const kill = (): void => killDescendants(new Set(readState(layout)?.daemons.map(({ pid }) => pid)));
  const killing = setInterval(kill, 100);
  try {
    await stopEnvironment(layout);
    await Promise.allSettled([work]);
  } finally {
    clearInterval(killing);
  }
  await stopEnvironment(layout);
}

/** Ends everything of the environment and removes what it left in the kernel. Keys, secrets and images stay. */
export async function stopEnvironment(layout: Layout): Promise<void> {
  await removeAbandonedWork(temporaryWork.parent(), temporaryWork.purposes);
  for (const name of ['default', 'altered', templateImage])
    await removeAbandonedWork(join(imagesDirectory(layout), name), ['build', 'alter']);
  const recorded = readState(layout);
  if (recorded === undefined) return;
  const found = findDaemons(layout).filter(({ pid }) => !recorded.daemons.some((daemon) => daemon.pid === pid));
  const state = { ...recorded, daemons: [...recorded.daemons, ...found] };
  const named = (name: string): readonly Daemon[] => state.daemons.filter((daemon) => daemon.name === name);
  await tellProblems(removePods(state));
  await Promise.all([...named('containerd'), ...named('snapshotter')].map((daemon) => stopDaemon(daemon)));
  removeShimsAndMounts(layout, state);
  await Promise.all(named('adaptor').map((daemon) => stopDaemon(daemon)));
  if (state.adaptorSocket !== undefined) removeAllMachines(layout, state.template === true);
  await Promise.all(state.daemons.filter(isRunning).map((daemon) => stopDaemon(daemon)));
  removeBridge(state.bridge);
  removeNetworkResults(layout);
  rmSync(layout.run, { recursive: true, force: true });
  writeState(layout, { ...state, daemons: [] });
}

async function tellProblems(removal: Promise<readonly string[]>): Promise<void> {
  for (const problem of await removal) process.stderr.write(`a pod could not be removed in order: ${problem}\n`);
}
