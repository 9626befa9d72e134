import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmdirSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fromJson, type JsonObject } from '@bufbuild/protobuf';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { SpecSchema } from '@sealpod/protocol/gen/kata/oci_pb';
import { type Client, createClient, TtrpcConnection, TtrpcServer } from '@sealpod/protocol/ttrpc';
import { createRegoEngine } from '@sealpod/rego';
import { AgentPolicy } from '../../agent-policy/index.ts';
import type { ImagePuller } from '../image-puller.ts';
import { createPodService, type PodServiceOptions } from '../service.ts';

const allRequests = AgentService.methods.map((method) => method.input.name);
/** A policy that allows every request. */
export const allowAll = `package agent_policy\n${[...new Set(allRequests)].map((name) => `${name} := true\n`).join('')}`;

const busybox = '/bin/busybox';
const applets = [
  'sh',
  'cat',
  'echo',
  'sleep',
  'stty',
  'true',
  'false',
  'kill',
  'env',
  'ls',
  'dd',
  'head',
  'id',
  'ps',
  'pwd',
  'trap',
  'readlink',
];

/** Why containers cannot be run here, or nothing. */
export function cannotRunContainers(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root to run containers';
  if (!existsSync(busybox)) return 'needs /bin/busybox (busybox-static)';
  try {
    execFileSync('crun', ['--version'], { stdio: 'ignore' });
  } catch {
    return 'needs crun';
  }
  return undefined;
}

/** Puts busybox where an image's root file system would be. */
export const busyboxImages: ImagePuller = {
  async pull(imageRef, bundleDirectory) {
    const rootfs = join(bundleDirectory, 'rootfs');
    for (const folder of ['bin', 'proc', 'dev', 'sys', 'tmp', 'etc', 'mnt'])
      mkdirSync(join(rootfs, folder), { recursive: true });
    copyFileSync(busybox, join(rootfs, 'bin/busybox'));
    for (const applet of applets) symlinkSync('busybox', join(rootfs, 'bin', applet));
    writeFileSync(join(rootfs, 'etc/image'), imageRef);
    return { manifestDigest: 'sha256:'.padEnd(71, '0'), rootfs, config: {} };
  },
  async release(bundleDirectory) {
    rmSync(join(bundleDirectory, 'rootfs'), { recursive: true, force: true });
  },
};

export interface PodFixture {
  /** Folder in the place of `/proc/sys`. */
  readonly sysctl: string;
  readonly root: string;
  readonly agent: Client<typeof AgentService>;
  readonly health: Client<typeof Health>;
  readonly denied: { request: string; reason: string }[];
  close(): Promise<void>;
}

const cgroup2Magic = 0x63677270;
const cgroupMount = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find(
  (path) => existsSync(path) && statfsSync(path).type === cgroup2Magic,
);

/** crun as it finds the guest: with cgroup v2 at its place, in a mount namespace of its own where the machine has v1. */
function crunCommand(folder: string): string {
  if (cgroupMount === '/sys/fs/cgroup') return 'crun';
  const script = join(folder, 'crun-with-cgroup2');
  const text =
    '#!/bin/sh\nexec unshare -m sh -c \'mount -t cgroup2 none /sys/fs/cgroup && exec crun "$@"\' crun "$@"\n';
  writeFileSync(script, text, { mode: 0o755 });
  return script;
}

/** A pod service on a socket of its own, in a folder of its own, with real crun. */
export async function startPod(
  policy: string | undefined,
  options: Partial<PodServiceOptions> = {},
): Promise<PodFixture> {
  const engine = createRegoEngine({ workers: 1, timeoutMs: 10_000 });
  const agentPolicy = await AgentPolicy.create({ engine, ...(policy === undefined ? {} : { policy }) }).catch(
    async (error: unknown) => {
      await engine.close();
      throw error;
    },
  );
  const base = mkdtempSync(join(tmpdir(), 'sealpod-pod-'));
  const paths = {
    root: join(base, 'run'),
    resolvConf: join(base, 'resolv.conf'),
    sysctl: join(base, 'sysctl'),
    cgroup: cgroupMount ?? join(base, 'cgroup'),
    cgroupParent: basename(base),
    crunState: join(base, 'crun'),
  };
  for (const folder of [paths.root, join(paths.sysctl, 'kernel'), paths.crunState])
    mkdirSync(folder, { recursive: true });
  writeFileSync(paths.resolvConf, 'nameserver 192.0.2.1\n');
  const denied: { request: string; reason: string }[] = [];
  const service = createPodService({
    images: busyboxImages,
    agentPolicy,
    version: '0.1.0-test',
    paths,
    crun: { command: crunCommand(base) },
    // Device rules are programs of the kernel's cgroup v2, which a machine with v1 does not run.
    deviceRules: cgroupMount === '/sys/fs/cgroup',
    onDenied: (denial) => denied.push(denial),
    ...options,
  });
  const server = new TtrpcServer();
  service.registerOn(server);
  const socket = join(base, 'agent.sock');
  await server.listen(socket);
  const connection = await TtrpcConnection.connect(socket);
  return {
    root: paths.root,
    sysctl: paths.sysctl,
    agent: createClient(AgentService, connection),
    health: createClient(Health, connection),
    denied,
    async close() {
      await service.close();
      connection.close();
      await server.close();
      await engine.close();
      const group = join(paths.cgroup, paths.cgroupParent);
      if (existsSync(group)) rmdirSync(group);
      rmSync(base, { recursive: true, force: true });
    },
  };
}

export interface ContainerWish {
  readonly id: string;
  readonly args: readonly string[];
  readonly terminal?: boolean;
  readonly env?: readonly string[];
  /** Members of the specification that replace the usual ones. */
  readonly spec?: JsonObject;
}

const capabilities = ['CAP_CHOWN', 'CAP_KILL', 'CAP_SETUID', 'CAP_SETGID'];

/** A CreateContainerRequest as a shim sends it with guest pull. */
export function containerRequest(root: string, wish: ContainerWish) {
  const rootfs = `${root}/${wish.id}/rootfs`;
  return {
    containerId: wish.id,
    storages: [
      {
        driver: 'image_guest_pull',
        driverOptions: ['image_guest_pull={"metadata":{}}'],
        source: 'registry.invalid/test@sha256:0',
        fstype: 'overlay',
        mountPoint: rootfs,
      },
    ],
    OCI: fromJson(SpecSchema, {
      Version: '1.1.0',
      Process: {
        Terminal: wish.terminal ?? false,
        User: { UID: 0, GID: 0 },
        Args: [...wish.args],
        Env: ['PATH=/bin', ...(wish.env ?? [])],
        Cwd: '/',
        Capabilities: { Bounding: capabilities, Effective: capabilities, Permitted: capabilities },
        NoNewPrivileges: true,
      },
      Root: { Path: rootfs, Readonly: false },
      Hostname: 'from-the-host',
      Mounts: [
        { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
        {
          destination: '/dev',
          type: 'tmpfs',
          source: 'tmpfs',
          options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
        },
        {
          destination: '/dev/pts',
          type: 'devpts',
          source: 'devpts',
          options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'],
        },
      ],
      Linux: {
        Namespaces: [{ Type: 'ipc' }, { Type: 'uts' }, { Type: 'mount' }, { Type: 'network', Path: '/proc/1/ns/net' }],
        MaskedPaths: ['/proc/kcore'],
        ReadonlyPaths: ['/proc/sys'],
      },
      ...wish.spec,
    }),
  };
}

/** Everything a process writes to one stream, to its end. */
export async function readAll(read: (length: number) => Promise<{ data: Uint8Array }>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for (;;) {
    const { data } = await read(4096);
    if (data.length === 0) return Buffer.concat(chunks).toString('utf8');
    chunks.push(data);
  }
}
