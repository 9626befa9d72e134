import { readFile } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import type { RuntimeJson } from './oci-spec.ts';

/** The profile of containers/common, as Debian's package brings it into the measured image. */
const defaultProfile = '/usr/share/containers/seccomp.json';
const architectures: Readonly<Record<string, { readonly runtime: string; readonly profile: string }>> = {
  x64: { runtime: 'SCMP_ARCH_X86_64', profile: 'amd64' },
  arm64: { runtime: 'SCMP_ARCH_AARCH64', profile: 'arm64' },
};

/** The conditions of a rule in the format of containers/common. */
interface Condition {
  readonly arches?: readonly string[];
  readonly caps?: readonly string[];
}

interface Profile {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly archMap: readonly { readonly architecture: string; readonly subArchitectures: readonly string[] }[];
  readonly syscalls: readonly {
    readonly names: readonly string[];
    readonly action: string;
    readonly args?: readonly object[] | null;
    readonly errnoRet?: number;
    readonly includes?: Condition;
    readonly excludes?: Condition;
  }[];
}

/**
 * Kubernetes' `RuntimeDefault` for a container with these capabilities (bounding set), in the form of the OCI runtime
 * specification (`linux.seccomp`). The profile is the guest's own: one that the host sends could allow everything, or
 * pretend that a call has succeeded.
 *
 * @param architecture as `process.arch`
 * @throws SealpodError PREREQUISITE where the image has no profile
 */
export async function defaultSeccomp(
  capabilities: readonly string[],
  file = defaultProfile,
  architecture: string = process.arch,
): Promise<RuntimeJson> {
  const text = await readFile(file, 'utf8').catch((cause) => {
    throw new SealpodError('PREREQUISITE', 'this machine has no seccomp profile for RuntimeDefault', {
      cause,
      expected: file,
    });
  });
  return runtimeProfile(JSON.parse(text) as Profile, capabilities, architecture);
}

function runtimeProfile(profile: Profile, capabilities: readonly string[], architecture: string): RuntimeJson {
  const own = architectures[architecture];
  if (own === undefined) throw new SealpodError('UNSUPPORTED', `no seccomp profile for ${architecture}`);
  const hasAny = (caps: readonly string[]): boolean => caps.some((name) => capabilities.includes(name));
  const included = ({ arches = [], caps = [] }: Condition = {}): boolean =>
    (arches.length === 0 || arches.includes(own.profile)) && (caps.length === 0 || hasAny(caps));
  const excluded = ({ arches = [], caps = [] }: Condition = {}): boolean =>
    arches.includes(own.profile) || hasAny(caps);
  const family = profile.archMap.find((item) => item.architecture === own.runtime);
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet === undefined ? {} : { defaultErrnoRet: profile.defaultErrnoRet }),
    architectures: [own.runtime, ...(family?.subArchitectures ?? [])],
    syscalls: profile.syscalls
      .filter((rule) => included(rule.includes) && !excluded(rule.excludes))
      .map(({ names, action, args, errnoRet }) => ({
        names,
        action,
        ...((args ?? []).length === 0 ? {} : { args }),
        ...(errnoRet === undefined ? {} : { errnoRet }),
      })),
  };
}
