import type { Container, PodSpec } from './kubernetes/types.ts';

/** A field that a Pod Security Standard refuses. */
export interface SecurityViolation {
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
}

const volumeKinds = [
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'image',
  'persistentVolumeClaim',
  'projected',
  'secret',
];
const safeSysctls = new Set([
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.ping_group_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_wmem',
]);

/**
 * What Kubernetes' Pod Security Standard "restricted" refuses of a pod beyond what no pod in a machine of its own can have
 * (`podRefusals`). Fields of the container count before those of the pod.
 */
export function restrictedViolations(spec: PodSpec): SecurityViolation[] {
  const found: SecurityViolation[] = [];
  const expect = (isFine: boolean, field: string, expected: string, actual: unknown): void => {
    if (!isFine) found.push({ field, expected, actual: JSON.stringify(actual ?? null) });
  };
  for (const volume of spec.volumes ?? []) {
    const kind = Object.keys(volume).find((name) => name !== 'name') ?? 'emptyDir';
    expect(volumeKinds.includes(kind), `spec.volumes[${volume.name}]`, volumeKinds.join(', '), kind);
  }
  for (const { name } of spec.securityContext?.sysctls ?? [])
    expect(safeSysctls.has(name), 'spec.securityContext.sysctls', [...safeSysctls].join(', '), name);
  for (const list of ['initContainers', 'containers', 'ephemeralContainers'] as const) {
    for (const container of spec[list] ?? [])
      expectRestricted(container, spec, `spec.${list}[${container.name}].securityContext`, expect);
  }
  return found;
}

function expectRestricted(
  { securityContext: own }: Container,
  { securityContext: pod }: PodSpec,
  field: string,
  expect: (isFine: boolean, field: string, expected: string, actual: unknown) => void,
): void {
  expect(
    own?.allowPrivilegeEscalation === false,
    `${field}.allowPrivilegeEscalation`,
    'false',
    own?.allowPrivilegeEscalation,
  );
  const nonRoot = own?.runAsNonRoot ?? pod?.runAsNonRoot;
  expect(nonRoot === true, `${field}.runAsNonRoot`, 'true', nonRoot);
  const user = own?.runAsUser ?? pod?.runAsUser;
  expect(user !== 0, `${field}.runAsUser`, 'another user than 0', user);
  const capabilities = own?.capabilities;
  expect((capabilities?.drop ?? []).includes('ALL'), `${field}.capabilities.drop`, '["ALL"]', capabilities?.drop);
  const added = (capabilities?.add ?? []).filter((name) => name !== 'NET_BIND_SERVICE');
  expect(added.length === 0, `${field}.capabilities.add`, '["NET_BIND_SERVICE"] or nothing', capabilities?.add);
  const seccomp = own?.seccompProfile?.type ?? pod?.seccompProfile?.type;
  expect(
    ['RuntimeDefault', 'Localhost'].includes(seccomp ?? ''),
    `${field}.seccompProfile.type`,
    'RuntimeDefault or Localhost',
    seccomp,
  );
  const appArmor = own?.appArmorProfile?.type ?? pod?.appArmorProfile?.type;
  expect(appArmor !== 'Unconfined', `${field}.appArmorProfile.type`, 'RuntimeDefault or Localhost', appArmor);
  const label = { ...pod?.seLinuxOptions, ...own?.seLinuxOptions };
  const types = ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t'];
  expect(types.includes(label.type ?? ''), `${field}.seLinuxOptions.type`, types.slice(1).join(', '), label.type);
  expect((label.user ?? '') + (label.role ?? '') === '', `${field}.seLinuxOptions`, 'no user and no role', label);
}
