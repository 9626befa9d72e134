import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { identityOf, waitForLock } from '@sealpod/processes';
import { go, requireGo } from './go.ts';
import { newestRelease, type Release } from './releases.ts';

const sources = fileURLToPath(new URL('.', import.meta.url));

/** Names under which the one program of many parts is called. */
const programNames = [
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
  'kubectl',
  'etcd',
  'containerd',
  'ctr',
  'helm',
];
const cniPlugins = ['plugins/main/bridge', 'plugins/main/loopback', 'plugins/ipam/host-local', 'plugins/meta/portmap'];
const tags = 'no_btrfs,no_devmapper,no_zfs,dockerless,providerless';
/** Raised where a part is built otherwise than before from the same files. */
const recipe = 1;

type Log = (line: string) => void;

/** A part of the cluster's programs that is built, and cached, apart from the others. */
interface Part {
  /** Folders below this one whose files it is built from. */
  readonly folders: readonly string[];
  readonly build: (output: string, log: Log) => Promise<void>;
}

/**
 * The folder with the programs of a release, built where no earlier build of the same sources by the same Go is cached.
 *
 * A cold build downloads about 1.1 GB of Go modules and takes 9 minutes on two idle cores; the cache keeps the binaries.
 *
 * @param cacheDirectory may be shared and deleted at any time
 * @param log told each line of the build
 * @throws SealpodError PREREQUISITE where Go 1.26 or newer is missing, INTERNAL where the build fails
 */
export async function buildClusterPrograms(
  cacheDirectory: string,
  log: Log,
  release: Release = newestRelease,
): Promise<string> {
  const goVersion = await requireGo(sources);
  const cache = join(cacheDirectory, 'cluster');
  mkdirSync(cache, { recursive: true });
  const lock = await waitForLock(join(cache, 'lock'), (pid) => log(`waiting for the build of process ${pid}`));
  try {
    removeAbandoned(cache);
    const parts: string[] = [];
    // Each uses all processors; together they would need the memory of several linkers.
    for (const part of partsOf(release)) parts.push(await ensurePart(part, cache, goVersion, log));
    return composed(parts, cache);
  } finally {
    await lock.release();
  }
}

/** What a build left whose process ended before it was done. */
function removeAbandoned(cache: string): void {
  for (const name of readdirSync(cache)) {
    const [, pid] = /\.(\d+)$/.exec(name) ?? [];
    if (pid !== undefined && identityOf(Number(pid)) === undefined)
      rmSync(join(cache, name), { recursive: true, force: true });
  }
}

/** In the order in which a later part's program takes the place of an earlier one's of the same name. */
function partsOf(release: Release): readonly Part[] {
  const { modules, containerdModules } = release;
  return [
    { folders: [...new Set(['programs', modules])], build: (output, log) => buildKubernetes(release, output, log) },
    ...(containerdModules === undefined
      ? []
      : [
          {
            folders: [containerdModules],
            build: (output: string, log: Log) => buildContainerd(containerdModules, output, log),
          },
        ]),
    ...['coredns', 'network-policy', 'metrics-server'].map((name) => ({
      folders: [name],
      build: (output: string, log: Log) => build(join(sources, name), join(output, name), '-s -w', log, '.'),
    })),
  ];
}

async function ensurePart(part: Part, cache: string, goVersion: string, log: Log): Promise<string> {
  const directory = join(cache, contentKey(part.folders, goVersion));
  if (existsSync(join(directory, 'complete'))) return directory;
  const unfinished = `${directory}.${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  await part.build(unfinished, log);
  mkdirSync(join(unfinished, 'complete'));
  rmSync(directory, { recursive: true, force: true });
  renameSync(unfinished, directory);
  return directory;
}

/** One folder with the programs of all parts, as links. */
function composed(parts: readonly string[], cache: string): string {
  const programs = new Map(
    parts.flatMap((part) =>
      readdirSync(part)
        .filter((name) => name !== 'complete')
        .map((name) => [name, join(part, name)] as const),
    ),
  );
  const key = createHash('sha256')
    .update(JSON.stringify([...programs]))
    .digest('hex')
    .slice(0, 32);
  const directory = join(cache, `all-${key}`);
  if (existsSync(directory)) return directory;
  const unfinished = `${directory}.${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  for (const [name, target] of programs) symlinkSync(target, join(unfinished, name));
  renameSync(unfinished, directory);
  return directory;
}

async function buildKubernetes({ modules }: Release, directory: string, log: Log): Promise<void> {
  const programs = join(sources, 'programs');
  const modfile = modules === 'programs' ? [] : [`-modfile=${join(sources, modules, 'go.mod')}`];
  const version = async (module: string): Promise<string> =>
    (await go(programs, ['list', ...modfile, '-m', '-f', '{{.Version}}', module], () => undefined)).trim();
  const kubernetes = await version('k8s.io/kubernetes');
  const minor = kubernetes.split('.')[1] ?? '';
  const stamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((path) => [
    `-X ${path}.gitVersion=${kubernetes}`,
    `-X ${path}.gitMajor=1`,
    `-X ${path}.gitMinor=${minor}`,
    `-X ${path}.gitTreeState=clean`,
  ]);
  const containerd = await version('github.com/containerd/containerd/v2');
  const ldflags = ['-s', '-w', ...stamps, `-X github.com/containerd/containerd/v2/version.Version=${containerd}`];
  const make = (output: string, ...packages: readonly string[]) =>
    build(programs, output, ldflags.join(' '), log, ...modfile, ...packages);
  mkdirSync(join(directory, 'cni'));
  await make(join(directory, 'kubernetes'), '.');
  await make(
    join(directory, 'containerd-shim-runc-v2'),
    'github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2',
  );
  await make(join(directory, 'pause'), './pause');
  await make(
    `${join(directory, 'cni')}/`,
    ...cniPlugins.map((path) => `github.com/containernetworking/plugins/${path}`),
  );
  for (const name of programNames) symlinkSync('kubernetes', join(directory, name));
}

/** containerd of an older line, whose modules do not go together with those of Kubernetes. */
async function buildContainerd(folder: string, directory: string, log: Log): Promise<void> {
  const module = 'github.com/containerd/containerd';
  const version = (
    await go(join(sources, folder), ['list', '-m', '-f', '{{.Version}}', module], () => undefined)
  ).trim();
  const packages = ['containerd', 'ctr', 'containerd-shim-runc-v2'].map((name) => `${module}/cmd/${name}`);
  const ldflags = `-s -w -X ${module}/version.Version=${version}`;
  await build(join(sources, folder), `${directory}/`, ldflags, log, ...packages);
}

async function build(
  folder: string,
  output: string,
  ldflags: string,
  log: Log,
  ...packages: readonly string[]
): Promise<void> {
  await go(folder, ['build', '-tags', tags, '-ldflags', ldflags, '-o', output, ...packages], log);
}

/** SHA-256 over the Go version and every file of a part, so that a change of either builds it anew. */
function contentKey(folders: readonly string[], goVersion: string): string {
  const hash = createHash('sha256').update(`${recipe} ${goVersion}`);
  const visit = (folder: string): void => {
    for (const name of readdirSync(join(sources, folder)).sort()) {
      const path = join(folder, name);
      if (statSync(join(sources, path)).isDirectory()) visit(path);
      else hash.update(`\0${path}\0`).update(readFileSync(join(sources, path)));
    }
  };
  for (const folder of folders) visit(folder);
  return hash.digest('hex').slice(0, 32);
}
