import type { Linux, LinuxResources, Mount, Process, Spec } from '@sealpod/protocol/gen/kata/oci_pb';
import { defaultSeccompProfile, type RuntimeJson } from './seccomp-profile.ts';
import type { VolumeDevice } from './volumes/persistent-volumes.ts';

export interface SpecContext {
  /** Absolute path of the root file system in the guest. */
  readonly rootfs: string;
  /** cgroup path, from the root of the cgroup file system. */
  readonly cgroupsPath: string;
  /** Source in the guest of each bind mount of the spec, by the source that the spec has. */
  readonly bindSources: ReadonlyMap<string, string>;
  /** Disks that the container may use, by the numbers that they have in this guest. */
  readonly volumeDevices?: readonly VolumeDevice[];
  /** Deny devices (the guest's TPM, disks and host channel are devices) that the specification does not allow. */
  readonly deviceRules: boolean;
}

const runtimeSpecVersion = '1.0.2';

/**
 * The OCI runtime-spec configuration (runtime-spec 1.0.2 config.json) of a container in this guest, from the message of
 * agent.proto. The pod is the machine: network, IPC and UTS are the guest's own, so those namespaces are not made; mount,
 * pid and cgroup are new for each container. System calls are filtered also where the host sent no filter. Paths to namespaces, hooks, id mappings and host name never come from the host's spec;
 * sysctls belong to the guest's namespaces and are set by `sysctl.ts`.
 */
export function runtimeSpec(spec: Spec, context: SpecContext): RuntimeJson {
  const linux = spec.Linux;
  return compact({
    ociVersion: runtimeSpecVersion,
    process: spec.Process === undefined ? undefined : runtimeProcess(spec.Process),
    root: { path: context.rootfs, readonly: spec.Root?.Readonly ?? false },
    mounts: spec.Mounts.map((mount) => runtimeMount(mount, context)),
    annotations: spec.Annotations,
    linux: {
      seccomp: defaultSeccompProfile(spec.Process?.Capabilities?.Bounding ?? []),
      ...(linux === undefined ? runtimeLinuxDefaults(context) : runtimeLinux(linux, context)),
    },
  });
}

/** runtime-spec `process`, for a container or an exec. */
export function runtimeProcess(process: Process): RuntimeJson {
  const { User: user, Capabilities: capabilities, ConsoleSize: size } = process;
  return compact({
    terminal: process.Terminal,
    consoleSize: process.Terminal ? consoleSize(size) : undefined,
    user: compact({
      uid: user?.UID ?? 0,
      gid: user?.GID ?? 0,
      additionalGids: user === undefined || user.AdditionalGids.length === 0 ? undefined : user.AdditionalGids,
    }),
    args: process.Args,
    env: process.Env,
    cwd: process.Cwd === '' ? '/' : process.Cwd,
    capabilities:
      capabilities === undefined
        ? undefined
        : {
            bounding: capabilities.Bounding,
            effective: capabilities.Effective,
            inheritable: capabilities.Inheritable,
            permitted: capabilities.Permitted,
            ambient: capabilities.Ambient,
          },
    rlimits: process.Rlimits.map((limit) => ({ type: limit.Type, hard: exact(limit.Hard), soft: exact(limit.Soft) })),
    noNewPrivileges: process.NoNewPrivileges,
    oomScoreAdj: Number(process.OOMScoreAdj),
  });
}

/** crun leaves a terminal without a size where none is given. */
function consoleSize(size: Process['ConsoleSize']): RuntimeJson {
  const given = size !== undefined && size.Height > 0 && size.Width > 0;
  return given ? { height: size.Height, width: size.Width } : { height: 24, width: 80 };
}

/**
 * runtime-spec `linux.resources` without device rules. Sets of processors and memory nodes are left out: one shim (runtime-rs)
 * sends the host's, whose numbers mean nothing here.
 */
export function runtimeResources(resources: LinuxResources): RuntimeJson {
  const { Memory: memory, CPU: cpu, Pids: pids } = resources;
  return compact({
    memory:
      memory === undefined
        ? undefined
        : compact({
            limit: nonZero(memory.Limit),
            reservation: nonZero(memory.Reservation),
            swap: nonZero(memory.Swap),
          }),
    cpu:
      cpu === undefined
        ? undefined
        : compact({
            shares: nonZero(cpu.Shares),
            quota: nonZero(cpu.Quota),
            period: nonZero(cpu.Period),
          }),
    pids: pids === undefined || pids.Limit === 0n ? undefined : { limit: exact(pids.Limit) },
    hugepageLimits:
      resources.HugepageLimits.length === 0
        ? undefined
        : resources.HugepageLimits.map((limit) => ({ pageSize: limit.Pagesize, limit: exact(limit.Limit) })),
  });
}

function runtimeLinuxDefaults(context: SpecContext): RuntimeJson {
  return { cgroupsPath: context.cgroupsPath, namespaces: namespaces(), resources: deviceRules([], context) };
}

/** Everything is denied first; crun itself then allows the harmless ones (null, zero, random, terminals). */
function deviceRules(rules: LinuxResources['Devices'], context: SpecContext): RuntimeJson {
  if (!context.deviceRules) return {};
  const own = (context.volumeDevices ?? []).map((numbers) => ({ allow: true, type: 'b', ...numbers, access: 'rw' }));
  const given = rules.filter((rule) => !isEverything(rule)).map(deviceRule);
  return { devices: [{ allow: false, access: 'rwm' }, ...given, ...own] };
}

/** A rule for every device: the host's way of saying "privileged", which would reach the guest's own devices. */
function isEverything(rule: LinuxResources['Devices'][number]): boolean {
  return rule.Major <= 0n;
}

function deviceRule(device: LinuxResources['Devices'][number]): RuntimeJson {
  return compact({
    allow: device.Allow,
    type: device.Type || undefined,
    major: Number(device.Major),
    minor: device.Minor > 0n ? Number(device.Minor) : undefined,
    access: device.Access || undefined,
  });
}

function runtimeLinux(linux: Linux, context: SpecContext): RuntimeJson {
  return compact({
    ...runtimeLinuxDefaults(context),
    resources: {
      ...(linux.Resources === undefined ? {} : runtimeResources(linux.Resources)),
      ...deviceRules(linux.Resources?.Devices ?? [], context),
    },
    devices:
      linux.Devices.length === 0
        ? undefined
        : linux.Devices.map((device) => ({
            path: device.Path,
            type: device.Type,
            major: Number(device.Major),
            minor: Number(device.Minor),
            fileMode: device.FileMode,
            uid: device.UID,
            gid: device.GID,
          })),
    seccomp: linux.Seccomp === undefined ? undefined : runtimeSeccomp(linux.Seccomp),
    rootfsPropagation: linux.RootfsPropagation || undefined,
    maskedPaths: linux.MaskedPaths,
    readonlyPaths: linux.ReadonlyPaths,
  });
}

function namespaces(): RuntimeJson[] {
  return [{ type: 'mount' }, { type: 'pid' }, { type: 'cgroup' }];
}

function runtimeMount(mount: Mount, context: SpecContext): RuntimeJson {
  const source = context.bindSources.get(mount.source) ?? mount.source;
  return compact({
    destination: mount.destination,
    // Kata's shim leaves its own name (`local`) as the type of an emptyDir that it binds.
    type: isBindMount(mount) ? 'bind' : mount.type || undefined,
    source: source || undefined,
    options: mount.options,
  });
}

function runtimeSeccomp(seccomp: NonNullable<Linux['Seccomp']>): RuntimeJson {
  return compact({
    defaultAction: seccomp.DefaultAction,
    architectures: seccomp.Architectures.length === 0 ? undefined : seccomp.Architectures,
    flags: seccomp.Flags.length === 0 ? undefined : seccomp.Flags,
    syscalls: seccomp.Syscalls.map((syscall) =>
      compact({
        names: syscall.Names,
        action: syscall.Action,
        errnoRet: syscall.ErrnoRet.case === 'errnoret' ? syscall.ErrnoRet.value : undefined,
        args:
          syscall.Args.length === 0
            ? undefined
            : syscall.Args.map((argument) => ({
                index: Number(argument.Index),
                value: exact(argument.Value),
                valueTwo: exact(argument.ValueTwo),
                op: argument.Op,
              })),
      }),
    ),
  });
}

/** Whether a mount of a spec binds a path of the guest. */
export function isBindMount(mount: Mount): boolean {
  return mount.type === 'bind' || mount.options.some((option) => option === 'bind' || option === 'rbind');
}

/** A 64-bit number as JSON writes it, digit by digit. */
function exact(value: bigint): unknown {
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(value.toString());
}

/** In the message, 0 says that a limit is not set. */
function nonZero(value: bigint): unknown {
  return value === 0n ? undefined : exact(value);
}

function compact(json: RuntimeJson): RuntimeJson {
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== undefined));
}
