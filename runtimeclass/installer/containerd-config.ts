import { stringify } from 'smol-toml';
import type { ContainerdRelease } from './containerd-version.ts';

/** Name of the runtime in containerd's configuration, and of the RuntimeClass' handler. */
export const runtimeName = 'sealpod';
/** Name of the snapshotter in containerd's configuration. */
export const snapshotterName = 'sealpod';

type Table = { [key: string]: string | number | boolean | string[] | Table | Table[] };

const cri2 = 'io.containerd.grpc.v1.cri';
const criRuntime3 = 'io.containerd.cri.v1.runtime';
const criImages3 = 'io.containerd.cri.v1.images';
const transfer3 = 'io.containerd.transfer.v1.local';

export interface RuntimePaths {
  readonly shimPath: string;
  /** The shim's own configuration file. */
  readonly runtimeConfigPath: string;
  readonly snapshotterSocket: string;
  /** Folder of the snapshotter: where containerd tells the kubelet to look for free space. */
  readonly snapshotterRoot?: string;
}

/** The runtime's own table: which annotations reach it, and where its configuration is. */
function runtimeTable(paths: RuntimePaths, release: ContainerdRelease): Table {
  return {
    // 1.6 reads runtime_path, but looks the binary up by the type all the same: there the type has to be the path.
    ...(release === '1.6'
      ? { runtime_type: paths.shimPath }
      : { runtime_type: `io.containerd.${runtimeName}.v2`, runtime_path: paths.shimPath }),
    privileged_without_host_devices: true,
    pod_annotations: ['io.katacontainers.*'],
    container_annotations: ['io.katacontainers.*', 'io.kubernetes.container.terminationMessage*'],
    ...(release === '1.7' && { snapshotter: snapshotterName }),
    ...(release === '2' && { sandboxer: 'podsandbox', snapshotter: snapshotterName }),
    options: { ConfigPath: paths.runtimeConfigPath },
  };
}

const proxyPlugins = (paths: RuntimePaths, release: ContainerdRelease): Table => ({
  [snapshotterName]: {
    type: 'snapshot',
    address: paths.snapshotterSocket,
    // Without it the kubelet looks at a folder that is not there, and has no statistics of any pod.
    ...(release === '2' && paths.snapshotterRoot !== undefined && { exports: { root: paths.snapshotterRoot } }),
  },
});

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** Tables merged member by member; all else of `over` replaces what is in `base`. */
function merged(base: Record<string, unknown>, over: Record<string, unknown>): Record<string, unknown> {
  const result = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = result[key];
    result[key] = isTable(below) && isTable(value) ? merged(below, value) : value;
  }
  return result;
}

/** Member by member, as containerd 2 does itself: the node's own table of the CRI plugin. */
function nodeCriTable(configuration: Record<string, unknown>): Record<string, unknown> {
  const plugins = configuration['plugins'];
  const table = isTable(plugins) ? plugins[cri2] : undefined;
  return isTable(table) ? table : {};
}

/** What containerd has for runc where a configuration says nothing; naming any runtime makes it forget this one. */
const builtinRunc: Table = { containerd: { runtimes: { runc: { runtime_type: 'io.containerd.runc.v2' } } } };

/**
 * Since 2.1 images are pulled by the transfer service, which unpacks for the snapshotters listed here alone. A list takes
 * the place of the built-in one, so the node's own entries, or that of the default snapshotter, come first.
 *
 * Ours is for no kind of configuration: containerd then downloads the layers and unpacks none, until a container is made,
 * when our snapshotter says that they are there. Without the download a plain pod of the same image would find an image
 * without layers, and never start.
 */
function unpackTable(configuration: Record<string, unknown>): Table {
  const platform = `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`;
  const plugins = configuration['plugins'];
  const transfer = isTable(plugins) ? plugins[transfer3] : undefined;
  const own = isTable(transfer) ? transfer['unpack_config'] : undefined;
  const entry = (snapshotter: string): Table => ({ platform, snapshotter, differ: 'walking' });
  const ours = { ...entry(snapshotterName), config_type: 'application/vnd.sealpod.none' };
  const present = Array.isArray(own) ? (own.filter(isTable) as Table[]) : [entry('overlayfs')];
  return { unpack_config: [...present, ours] };
}

/**
 * What a node's containerd needs for the runtime, as a file for its `imports`.
 *
 * Before 2.0 the table of a plugin in an imported file replaces that of the main file as a whole, so the fragment repeats
 * the node's (`configuration`, parsed) with ours added; install again after changing it. In 1.6 a snapshotter can be
 * chosen for the node only, so none is there: the shim ignores the root file systems that the host unpacks.
 */
export function runtimeFragment(
  paths: RuntimePaths,
  release: ContainerdRelease,
  configuration: Record<string, unknown>,
): string {
  const runtimes: Table = { [runtimeName]: runtimeTable(paths, release) };
  const node = merged(builtinRunc, nodeCriTable(configuration));
  const text =
    release === '2'
      ? {
          version: 3,
          plugins: {
            [criRuntime3]: { containerd: { runtimes } },
            [criImages3]: { runtime_platforms: { [runtimeName]: { snapshotter: snapshotterName } } },
            [transfer3]: unpackTable(configuration),
          },
          proxy_plugins: proxyPlugins(paths, release),
        }
      : {
          version: 2,
          plugins: {
            [cri2]: merged(node, {
              containerd: { ...(release === '1.7' && { disable_snapshot_annotations: false }), runtimes },
            }),
          },
          ...(release === '1.7' && { proxy_plugins: proxyPlugins(paths, release) }),
        };
  return `# Written by sealpod's installer, which also removes it.\n${stringify(text)}`;
}

export interface DevelopmentOptions extends RuntimePaths {
  readonly root: string;
  readonly state: string;
  /** containerd's gRPC socket, and the CRI's; the ttrpc socket is the same with `.ttrpc`. */
  readonly socket: string;
  readonly cniConfigurationDirectory: string;
  readonly cniBinaryDirectory?: string;
  /** Image for pause containers; it must be in containerd's namespace `k8s.io`. */
  readonly sandboxImage: string;
  readonly release?: ContainerdRelease;
  readonly debug?: boolean;
  /** Also a plain `runc` runtime (with containerd's own shim), for comparison. */
  readonly runc?: boolean;
  /** Folder of `<host:port>/hosts.toml` files: how registries are spoken to. */
  readonly registryHostsDirectory?: string;
  /** Snapshotter of the node; default is ours, so that no image is ever unpacked on this host. */
  readonly snapshotter?: string;
}

const quietPlugins = [
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.internal.v1.tracing',
  'io.containerd.tracing.processor.v1.otlp',
];

/**
 * The whole configuration of a private containerd: own root, state and sockets, our runtime as the default, our
 * snapshotter for the node. Works where OOM scores may not be lowered and beside other users of `ip netns`.
 */
export function developmentContainerdConfig(options: DevelopmentOptions): string {
  const release = options.release ?? '1.6';
  const snapshotter = options.snapshotter ?? snapshotterName;
  const runtimes: Table = {
    [runtimeName]: runtimeTable(options, release),
    ...(options.runc === true && {
      runc: { runtime_type: 'io.containerd.runc.v2', options: { SystemdCgroup: false } },
    }),
  };
  const binaries = options.cniBinaryDirectory ?? '/usr/lib/cni';
  const common: Table = {
    root: options.root,
    state: options.state,
    oom_score: 0,
    disabled_plugins: quietPlugins,
    grpc: { address: options.socket },
    ttrpc: { address: `${options.socket}.ttrpc` },
    debug: { level: options.debug === true ? 'debug' : 'info' },
    proxy_plugins: proxyPlugins(options, release),
  };
  const runtime: Table = { restrict_oom_score_adj: true, netns_mounts_under_state_dir: true };
  const registry: Table =
    options.registryHostsDirectory === undefined ? {} : { registry: { config_path: options.registryHostsDirectory } };
  const streaming: Table = { stream_server_address: '127.0.0.1', stream_server_port: '0' };
  if (release === '2') {
    return stringify({
      version: 3,
      ...common,
      plugins: {
        [criImages3]: {
          snapshotter,
          disable_snapshot_annotations: false,
          ...registry,
          pinned_images: { sandbox: options.sandboxImage },
          runtime_platforms: { [runtimeName]: { snapshotter: snapshotterName } },
        },
        [transfer3]: unpackTable({}),
        [criRuntime3]: {
          ...runtime,
          cni: { bin_dirs: [binaries], conf_dir: options.cniConfigurationDirectory },
          containerd: { default_runtime_name: runtimeName, runtimes },
        },
        [cri2]: streaming,
      },
    });
  }
  return stringify({
    version: 2,
    ...common,
    plugins: {
      [cri2]: {
        ...runtime,
        ...streaming,
        ...registry,
        sandbox_image: options.sandboxImage,
        cni: { bin_dir: binaries, conf_dir: options.cniConfigurationDirectory },
        containerd: {
          snapshotter,
          disable_snapshot_annotations: false,
          default_runtime_name: runtimeName,
          runtimes,
        },
      },
    },
  });
}
