/**
 * The members of an OCI runtime `config.json` that the shim reads (runtime-spec 1.x, config.md and config-linux.md).
 * Every member may be missing: the file comes from containerd, which leaves out what is empty.
 */
export interface Specification {
  readonly ociVersion?: string;
  readonly process?: ProcessSpecification;
  readonly root?: { readonly path?: string; readonly readonly?: boolean };
  readonly hostname?: string;
  readonly mounts?: readonly MountSpecification[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux?: LinuxSpecification;
}

export interface ProcessSpecification {
  readonly terminal?: boolean;
  readonly consoleSize?: { readonly height?: number; readonly width?: number };
  readonly user?: {
    readonly uid?: number;
    readonly gid?: number;
    readonly additionalGids?: readonly number[];
    readonly username?: string;
  };
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly cwd?: string;
  readonly capabilities?: {
    readonly bounding?: readonly string[];
    readonly effective?: readonly string[];
    readonly inheritable?: readonly string[];
    readonly permitted?: readonly string[];
    readonly ambient?: readonly string[];
  };
  readonly rlimits?: readonly { readonly type?: string; readonly hard?: number; readonly soft?: number }[];
  readonly noNewPrivileges?: boolean;
  readonly oomScoreAdj?: number;
}

export interface MountSpecification {
  readonly destination?: string;
  readonly source?: string;
  readonly type?: string;
  readonly options?: readonly string[];
}

export interface ResourcesSpecification {
  readonly memory?: {
    readonly limit?: number;
    readonly reservation?: number;
    readonly swap?: number;
    readonly kernel?: number;
    readonly kernelTCP?: number;
    readonly swappiness?: number;
    readonly disableOOMKiller?: boolean;
  };
  readonly cpu?: {
    readonly shares?: number;
    readonly quota?: number;
    readonly period?: number;
    readonly realtimeRuntime?: number;
    readonly realtimePeriod?: number;
    readonly cpus?: string;
    readonly mems?: string;
  };
  readonly hugepageLimits?: readonly { readonly pageSize?: string; readonly limit?: number }[];
}

export interface LinuxSpecification {
  readonly sysctl?: Readonly<Record<string, string>>;
  readonly resources?: ResourcesSpecification;
  readonly cgroupsPath?: string;
  readonly namespaces?: readonly { readonly type?: string; readonly path?: string }[];
  readonly devices?: readonly {
    readonly path?: string;
    readonly type?: string;
    readonly major?: number;
    readonly minor?: number;
    readonly fileMode?: number;
    readonly uid?: number;
    readonly gid?: number;
  }[];
  readonly seccomp?: {
    readonly defaultAction?: string;
    readonly architectures?: readonly string[];
    readonly flags?: readonly string[];
    readonly syscalls?: readonly {
      readonly names?: readonly string[];
      readonly action?: string;
      readonly errnoRet?: number;
      readonly args?: readonly {
        readonly index?: number;
        readonly value?: number;
        readonly valueTwo?: number;
        readonly op?: string;
      }[];
    }[];
  };
  readonly rootfsPropagation?: string;
  readonly maskedPaths?: readonly string[];
  readonly readonlyPaths?: readonly string[];
}
