import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bundleGuestAgent } from '@sealpod/guest-agent/bundle';
import { alterPodVmImage, buildPodVmImage, measurePodVmImage } from '@sealpod/peer-pods/pod-vm';
import type { ReferenceValuesFile } from '../commands/reference-value.ts';
import type { Layout } from './layout.ts';

/** A pod VM image with what its measured components must be. */
export interface MeasuredImage {
  readonly directory: string;
  /** `sha256:…` of the disk. */
  readonly image: string;
  readonly referenceValues: ReferenceValuesFile;
}

/** Folder with one pod VM image a name. The adaptor boots images of this folder and no others. */
export function imagesDirectory(layout: Layout): string {
  return join(layout.home, 'pod-vm-images');
}

/** The folder of the certificate authority for the software TPMs of this environment. */
export function tpmAuthorityDirectory(layout: Layout): string {
  return join(layout.home, 'tpm-authority');
}

/** Builds (or finds unchanged) the pod VM image with the guest agent of this source tree. */
export async function buildImage(directory: string, cache: string, progress: (step: string) => void): Promise<string> {
  const agent = join(directory, '.guest-agent');
  mkdirSync(directory, { recursive: true });
  rmSync(agent, { recursive: true, force: true });
  await bundleGuestAgent(agent);
  try {
    const manifest = await buildPodVmImage({
      outputDirectory: directory,
      cacheDirectory: join(cache, 'debian'),
      guestAgentDirectory: agent,
      progress,
    });
    return manifest.image;
  } finally {
    rmSync(agent, { recursive: true, force: true });
  }
}

/** Predicts and records what a machine that boots the image measures; writes `reference-values.json` beside it. */
export async function measureImage(
  directory: string,
  cache: string,
  shapes?: readonly { readonly vcpus: number; readonly memoryMiB: number }[],
): Promise<MeasuredImage> {
  const file = await measurePodVmImage({
    imageDirectory: directory,
    cacheDirectory: join(cache, 'calibrations'),
    ...(shapes === undefined ? {} : { shapes }),
  });
  const referenceValues = JSON.parse(readFileSync(file, 'utf8')) as ReferenceValuesFile;
  return { directory, image: referenceValues.image, referenceValues };
}

/** Name of the copy of the image whose machines start from a template. */
export const templateImage = 'template';

/** Makes that copy: its measured kernel command line says so. */
export async function makeTemplateImage(directory: string, outputDirectory: string): Promise<void> {
  await alterPodVmImage({ imageDirectory: directory, outputDirectory, change: 'template' });
}

/** A copy of the image whose kernel command line has one word more: what a curious host might boot instead. */
export async function alterImage(directory: string, outputDirectory: string): Promise<void> {
  await alterPodVmImage({ imageDirectory: directory, outputDirectory, change: 'command-line' });
}
