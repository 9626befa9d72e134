import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SealpodError } from '@sealpod/protocol/errors';

const sources = fileURLToPath(new URL('.', import.meta.url));
const minimumGo = [1, 26] as const;

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

/**
 * The folder with the cluster's programs, built where no earlier build of the same sources by the same Go is cached.
 *
 * A cold build downloads about 1.1 GB of Go modules and takes 9 minutes on two idle cores; the cache keeps the binaries.
 *
 * @param cacheDirectory may be shared and deleted at any time
 * @param log told each line of the build
 * @throws SealpodError PREREQUISITE where Go 1.26 or newer is missing, INTERNAL where the build fails
 */
export async function buildClusterPrograms(cacheDirectory: string, log: (line: string) => void): Promise<string> {
  const goVersion = await requireGo();
  const directory = join(cacheDirectory, 'cluster', contentKey(goVersion));
  if (existsSync(join(directory, 'complete'))) return directory;
  const unfinished = `${directory}.${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(join(unfinished, 'cni'), { recursive: true });
  await buildInto(unfinished, log);
  for (const name of programNames) symlinkSync('kubernetes', join(unfinished, name));
  mkdirSync(join(unfinished, 'complete'));
  rmSync(directory, { recursive: true, force: true });
  renameSync(unfinished, directory);
  return directory;
}

async function buildInto(directory: string, log: (line: string) => void): Promise<void> {
  const programs = join(sources, 'programs');
  const list = (module: string) => go(programs, ['list', '-m', '-f', '{{.Version}}', module], () => undefined);
  const kubernetes = (await list('k8s.io/kubernetes')).trim();
  const containerd = (await list('github.com/containerd/containerd/v2')).trim();
  const minor = kubernetes.split('.')[1] ?? '';
  const stamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((path) => [
    `-X ${path}.gitVersion=${kubernetes}`,
    `-X ${path}.gitMajor=1`,
    `-X ${path}.gitMinor=${minor}`,
    `-X ${path}.gitTreeState=clean`,
  ]);
  const version = `-X github.com/containerd/containerd/v2/version.Version=${containerd}`;
  const ldflags = ['-s', '-w', ...stamps, version].join(' ');
  const build = (folder: string, output: string, ...packages: readonly string[]) =>
    go(folder, ['build', '-tags', tags, '-ldflags', ldflags, '-o', output, ...packages], log);
  await build(programs, join(directory, 'kubernetes'), '.');
  const shim = 'github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2';
  await build(programs, join(directory, 'containerd-shim-runc-v2'), shim);
  await build(programs, join(directory, 'pause'), './pause');
  const plugins = cniPlugins.map((path) => `github.com/containernetworking/plugins/${path}`);
  await build(programs, `${join(directory, 'cni')}/`, ...plugins);
  await build(join(sources, 'coredns'), join(directory, 'coredns'), '.');
}

async function requireGo(): Promise<string> {
  const text = await go(sources, ['env', 'GOVERSION'], () => undefined).catch(() => 'no go program');
  const [major = 0, minor = 0] = (/^go(\d+)\.(\d+)/.exec(text)?.slice(1) ?? []).map(Number);
  if (major > minimumGo[0] || (major === minimumGo[0] && minor >= minimumGo[1])) return text.trim();
  throw new SealpodError('PREREQUISITE', 'the development cluster is built with Go', {
    expected: `Go ${minimumGo.join('.')} or newer in PATH`,
    actual: text.trim(),
    fix: 'install a current Go and run this again',
  });
}

/** SHA-256 over the Go version and every file the build reads, so that a change of either builds anew. */
function contentKey(goVersion: string): string {
  const hash = createHash('sha256')
    .update(goVersion)
    .update(readFileSync(fileURLToPath(import.meta.url)));
  const visit = (folder: string): void => {
    for (const name of readdirSync(join(sources, folder)).sort()) {
      const path = join(folder, name);
      if (statSync(join(sources, path)).isDirectory()) visit(path);
      else hash.update(`\0${path}\0`).update(readFileSync(join(sources, path)));
    }
  };
  visit('programs');
  visit('coredns');
  return hash.digest('hex').slice(0, 32);
}

function go(directory: string, args: readonly string[], log: (line: string) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('go', args, {
      cwd: directory,
      env: { ...process.env, GOTOOLCHAIN: 'local', CGO_ENABLED: '0', GOFLAGS: '-modcacherw -trimpath -buildvcs=false' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let lastLines = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      lastLines = (lastLines + chunk).slice(-4000);
      for (const line of chunk.toString().split('\n').filter(Boolean)) log(line);
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      if (code === 0) resolve(output);
      else
        reject(new SealpodError('INTERNAL', `go ${args[0] ?? ''} failed with ${code}`, { actual: lastLines.trim() }));
    });
  });
}
