import {
  chmodSync,
  constants,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { extractHostPackages, writeHostTools } from '@sealpod/peer-pods/host-tools';
import { diskName, libraryClosure, manifestName, packagedNode } from '@sealpod/peer-pods/pod-vm';
import { bundlePrograms, bundleShim } from '@sealpod/runtimeclass/bundle';
import { writePayloadRecord } from '@sealpod/runtimeclass/node-agent';
import { buildImage } from '../image/build.ts';
import { nodeImage, type ProgramList, releaseVersion, servicesImage } from './programs.ts';

export interface ReleaseOptions {
  /** Receives one OCI image layout a name. */
  readonly output: string;
  /** Keeps Debian packages between builds. */
  readonly cacheDirectory: string;
  /** The pod VM image that nodes boot: folder with disk and manifest. */
  readonly podVmDirectory: string;
  readonly progress?: (step: string) => void;
}

/** An image that was built. */
export interface ReleaseImage {
  readonly name: string;
  readonly layout: string;
  /** Digest of the manifest. */
  readonly digest: string;
}

/** What a cluster pulls. Names are those that the chart knows. */
export const imageNames = { node: 'sealpod-node', services: 'sealpod-services' } as const;

const payloadDirectory = 'opt/sealpod';
const unprivileged = '65532';

/**
 * Builds the images of a release as OCI layouts, without a container engine: bundles of this source tree, Node from the
 * npm package, programs and libraries from Debian packages. Equal inputs give equal bytes.
 *
 * @throws SealpodError PREREQUISITE, PROVIDER_IMAGE, IMG_FORMAT
 */
export async function buildReleaseImages(options: ReleaseOptions): Promise<readonly ReleaseImage[]> {
  const progress = options.progress ?? (() => undefined);
  const work = await mkdtemp(join(tmpdir(), 'sealpod-release-'));
  try {
    progress('Debian packages');
    const packages = join(work, 'packages');
    await extractHostPackages(packages, options.cacheDirectory);
    progress('image of the node');
    const node = await writeNodeRoot(join(work, 'node'), packages, options.podVmDirectory);
    progress('image of the services');
    const services = await writeServicesRoot(join(work, 'services'), packages);
    const images: ReleaseImage[] = [];
    for (const { name, root, process } of [node, services]) {
      progress(`layers of ${name}`);
      normalizeModes(root);
      const layout = join(options.output, name);
      rmSync(layout, { recursive: true, force: true });
      const { digest } = await buildImage({ root: { directory: root }, process, output: layout, tag: releaseVersion });
      images.push({ name, layout, digest });
    }
    return images;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function writeNodeRoot(root: string, packages: string, podVmDirectory: string) {
  const payload = join(root, payloadDirectory);
  const library = join(payload, 'lib');
  await bundleShim(library);
  await writePrograms(library, nodeImage);
  await writeHostTools(join(payload, 'tools'), packages);
  const podVm = join(payload, 'pod-vm', 'default');
  mkdirSync(podVm, { recursive: true });
  for (const name of [diskName, manifestName])
    copyFileSync(join(podVmDirectory, name), join(podVm, name), constants.COPYFILE_FICLONE);
  normalizeModes(payload);
  writePayloadRecord(payload, releaseVersion);
  // The agent runs programs of the host in the host's namespaces.
  await writeLibraries(root, packages, ['usr/bin/nsenter']);
  return {
    name: imageNames.node,
    root,
    process: {
      entrypoint: [
        `/${payloadDirectory}/lib/node`,
        `/${payloadDirectory}/lib/node-agent.mjs`,
        '--config',
        '/etc/sealpod/node-agent.json',
      ],
      environment: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
    },
  };
}

async function writeServicesRoot(root: string, packages: string) {
  await writePrograms(join(root, 'app'), servicesImage);
  await writeLibraries(root, packages, []);
  writeText(root, 'etc/passwd', `nonroot:x:${unprivileged}:${unprivileged}:nonroot:/:/nonexistent\n`);
  writeText(root, 'etc/group', `nonroot:x:${unprivileged}:\n`);
  return {
    name: imageNames.services,
    root,
    process: { user: `${unprivileged}:${unprivileged}`, workingDirectory: '/', environment: ['PATH=/app'] },
  };
}

/** Bundles the programs of an image into `directory`, with what they look for beside themselves, and Node. */
export async function writePrograms(directory: string, list: ProgramList): Promise<void> {
  mkdirSync(directory, { recursive: true });
  await bundlePrograms(directory, list.programs);
  for (const [name, file] of Object.entries(list.files)) cpSync(file, join(directory, name));
  // The runtime's bundle has a link in its place.
  rmSync(join(directory, 'node'), { force: true });
  copyFileSync(packagedNode(), join(directory, 'node'));
  chmodSync(join(directory, 'node'), 0o755);
}

/** The libraries of Node and of `programs`, which are taken along, and the dynamic linker in its place. */
async function writeLibraries(root: string, packages: string, programs: readonly string[]): Promise<void> {
  for (const { path, content } of await libraryClosure(packages, [...programs, packagedNode()])) {
    if (basename(path) === 'node') continue;
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), content, { mode: 0o755 });
  }
}

function writeText(root: string, path: string, text: string): void {
  mkdirSync(join(root, path, '..'), { recursive: true });
  writeFileSync(join(root, path), text);
}

/** Modes must not depend on the umask of whoever builds. */
function normalizeModes(directory: string): void {
  chmodSync(directory, 0o755);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) normalizeModes(path);
    else if (entry.isFile()) chmodSync(path, (statSync(path).mode & 0o100) === 0 ? 0o644 : 0o755);
  }
}
