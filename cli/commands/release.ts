import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { parseReference } from '@sealpod/registry';
import type { Command } from 'commander';
import { buildImage as buildPodVmImage, imagesDirectory } from '../development/pod-vm-image.ts';
import { pushImage } from '../image/push.ts';
import { buildReleaseImages, type ReleaseImage } from '../release/images.ts';
import { releaseVersion } from '../release/programs.ts';
import { writeResult } from '../terminal/output.ts';
import { Progress } from '../terminal/progress.ts';
import { globalOptions, layoutFor } from './context.ts';
import { authFileOption, registryAccess } from './registry-options.ts';

interface ImagesOptions {
  readonly directory?: string;
  readonly push?: string;
  readonly plainHttp?: boolean;
  readonly authFile?: string;
  readonly tag: string;
}

/** `sealpod release images`. */
export function addReleaseCommands(program: Command): void {
  const release = program.command('release').description('what a cluster installs');
  release
    .command('images')
    .description('build the container images, without a container engine; equal inputs give equal bytes')
    .option('--directory <directory>', 'keep them: one OCI image layout for each image')
    .option('--push <prefix>', 'registry and prefix to push to, e.g. registry.example/sealpod')
    .option('--plain-http', 'speak plain HTTP to the registry')
    .option(...authFileOption)
    .option('--tag <tag>', 'tag in the registry', releaseVersion)
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod release images --directory ./images\n  sealpod release images --push registry.example/sealpod',
    )
    .action(async (options: ImagesOptions, command: Command) => {
      if (options.directory === undefined && options.push === undefined)
        throw new SealpodError('USAGE', 'nothing to do', { fix: 'name --directory or --push' });
      const images = await buildImages(options, command);
      const rows = images.map(({ name, reference, digest }) => [name, reference, digest]);
      writeResult(globalOptions(command).output, images, ['image', 'reference', 'digest'], rows);
    });
}

async function buildImages(options: ImagesOptions, command: Command) {
  const layout = layoutFor(command);
  const progress = new Progress();
  const output =
    options.directory === undefined ? mkdtempSync(join(tmpdir(), 'sealpod-images-')) : resolve(options.directory);
  mkdirSync(output, { recursive: true });
  try {
    const podVmDirectory = join(imagesDirectory(layout), 'default');
    const say = (step: string): void => progress.say(`                 ${step}`);
    await progress.step('pod VM image', () => buildPodVmImage(podVmDirectory, layout.cache, say));
    const images = await progress.step('images', () =>
      buildReleaseImages({ output, cacheDirectory: join(layout.cache, 'debian'), podVmDirectory, progress: say }),
    );
    const results: { name: string; reference: string; digest: string }[] = [];
    for (const image of images) {
      const { name, layout: directory, digest } = image;
      const pushed =
        options.push === undefined ? undefined : `${options.push.replace(/\/$/, '')}/${name}:${options.tag}`;
      if (pushed !== undefined) await progress.step(`push ${name}`, () => push(image, pushed, options));
      results.push({ name, reference: pushed ?? `oci:${directory}`, digest });
    }
    return results;
  } finally {
    if (options.directory === undefined) rmSync(output, { recursive: true, force: true });
  }
}

async function push(image: ReleaseImage, to: string, { plainHttp, authFile }: ImagesOptions): Promise<void> {
  const destination = parseReference(to);
  await pushImage({
    source: { kind: 'layout', directory: image.layout, tag: releaseVersion },
    destination,
    ...registryAccess(plainHttp === true ? [destination.registry] : [], authFile),
  });
}
