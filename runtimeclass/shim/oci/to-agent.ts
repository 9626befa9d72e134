import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type LinuxResources,
  LinuxResourcesSchema,
  type LinuxSchema,
  type Process,
  ProcessSchema,
  type Spec,
  SpecSchema,
} from '@sealpod/protocol/gen/kata/oci_pb';
import type {
  LinuxSpecification,
  ProcessSpecification,
  ResourcesSpecification,
  Specification,
} from './specification.ts';

const largestInt64 = 2n ** 63n - 1n;
const largestUint64 = 2n ** 64n - 1n;

/** JSON numbers near the limits of 64 bits were rounded when parsed (RLIM_INFINITY); they become the limit again. */
function integer(value: number | undefined, lowest: bigint, highest: bigint): bigint {
  if (value === undefined || !Number.isFinite(value)) return 0n;
  const whole = BigInt(Math.trunc(value));
  if (whole < lowest) return lowest;
  return whole > highest ? highest : whole;
}

const int64 = (value: number | undefined): bigint => integer(value, -largestInt64 - 1n, largestInt64);
const uint64 = (value: number | undefined): bigint => integer(value, 0n, largestUint64);
const list = <T>(values: readonly T[] | undefined): T[] => [...(values ?? [])];

/** A process of config.json, or of `Task.Exec`, in the form of the agent protocol. Host security labels are left out. */
export function processToAgent(process: ProcessSpecification): Process {
  return create(ProcessSchema, {
    Terminal: process.terminal ?? false,
    ...(process.consoleSize && {
      ConsoleSize: { Height: process.consoleSize.height ?? 0, Width: process.consoleSize.width ?? 0 },
    }),
    User: {
      UID: process.user?.uid ?? 0,
      GID: process.user?.gid ?? 0,
      AdditionalGids: list(process.user?.additionalGids),
      Username: process.user?.username ?? '',
    },
    Args: list(process.args),
    Env: list(process.env),
    Cwd: process.cwd ?? '/',
    ...(process.capabilities && {
      Capabilities: {
        Bounding: list(process.capabilities.bounding),
        Effective: list(process.capabilities.effective),
        Inheritable: list(process.capabilities.inheritable),
        Permitted: list(process.capabilities.permitted),
        Ambient: list(process.capabilities.ambient),
      },
    }),
    Rlimits: list(process.rlimits).map((limit) => ({
      Type: limit.type ?? '',
      Hard: uint64(limit.hard),
      Soft: uint64(limit.soft),
    })),
    NoNewPrivileges: process.noNewPrivileges ?? false,
    OOMScoreAdj: int64(process.oomScoreAdj),
  });
}

/**
 * Memory, CPU and huge page limits; all else of the host's cgroup settings means nothing in the guest, its sets of
 * processors and memory nodes neither (upstream's shim clears them too: an agent that sets them fails).
 */
export function resourcesToAgent(resources: ResourcesSpecification): LinuxResources {
  const { memory, cpu } = resources;
  return create(LinuxResourcesSchema, {
    ...(memory && {
      Memory: {
        Limit: int64(memory.limit),
        Reservation: int64(memory.reservation),
        Swap: int64(memory.swap),
        Kernel: int64(memory.kernel),
        KernelTCP: int64(memory.kernelTCP),
        Swappiness: uint64(memory.swappiness),
        DisableOOMKiller: memory.disableOOMKiller ?? false,
      },
    }),
    ...(cpu && {
      CPU: {
        Shares: uint64(cpu.shares),
        Quota: int64(cpu.quota),
        Period: uint64(cpu.period),
        RealtimeRuntime: int64(cpu.realtimeRuntime),
        RealtimePeriod: uint64(cpu.realtimePeriod),
      },
    }),
    HugepageLimits: list(resources.hugepageLimits).map((limit) => ({
      Pagesize: limit.pageSize ?? '',
      Limit: uint64(limit.limit),
    })),
  });
}

function seccompToAgent(seccomp: NonNullable<LinuxSpecification['seccomp']>) {
  return {
    DefaultAction: seccomp.defaultAction ?? '',
    Architectures: list(seccomp.architectures),
    Flags: list(seccomp.flags),
    Syscalls: list(seccomp.syscalls).map((call) => ({
      Names: list(call.names),
      Action: call.action ?? '',
      ...(call.errnoRet !== undefined && { ErrnoRet: { case: 'errnoret' as const, value: call.errnoRet } }),
      Args: list(call.args).map((argument) => ({
        Index: uint64(argument.index),
        Value: uint64(argument.value),
        ValueTwo: uint64(argument.valueTwo),
        Op: argument.op ?? '',
      })),
    })),
  };
}

function linuxToAgent(linux: LinuxSpecification): MessageInitShape<typeof LinuxSchema> {
  return {
    Sysctl: { ...linux.sysctl },
    Resources: resourcesToAgent(linux.resources ?? {}),
    CgroupsPath: linux.cgroupsPath ?? '',
    Namespaces: list(linux.namespaces).map(({ type, path }) => ({ Type: type ?? '', Path: path ?? '' })),
    Devices: list(linux.devices).map((device) => ({
      Path: device.path ?? '',
      Type: device.type ?? '',
      Major: int64(device.major),
      Minor: int64(device.minor),
      FileMode: device.fileMode ?? 0,
      UID: device.uid ?? 0,
      GID: device.gid ?? 0,
    })),
    ...(linux.seccomp && { Seccomp: seccompToAgent(linux.seccomp) }),
    RootfsPropagation: linux.rootfsPropagation ?? '',
    MaskedPaths: list(linux.maskedPaths),
    ReadonlyPaths: list(linux.readonlyPaths),
  };
}

/** A config.json, already changed for the guest by `adaptSpecification`, in the form of the agent protocol. */
export function specificationToAgent(specification: Specification): Spec {
  return create(SpecSchema, {
    Version: specification.ociVersion ?? '',
    Process: processToAgent(specification.process ?? {}),
    Root: { Path: specification.root?.path ?? '', Readonly: specification.root?.readonly ?? false },
    Hostname: specification.hostname ?? '',
    Mounts: list(specification.mounts).map((mount) => ({
      destination: mount.destination ?? '',
      source: mount.source ?? '',
      type: mount.type ?? '',
      options: list(mount.options),
    })),
    Annotations: { ...specification.annotations },
    Linux: linuxToAgent(specification.linux ?? {}),
  });
}
