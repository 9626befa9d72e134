import type { Container, Handler, PodSecurityContext, PodSpec, SecurityContext } from './kubernetes/types.ts';

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
  'net.ipv4.tcp_slow_start_after_idle',
  'net.ipv4.tcp_notsent_lowat',
]);

/** Annotation of before Kubernetes 1.30, by container. */
const appArmorPrefix = 'container.apparmor.security.beta.kubernetes.io/';
const seLinuxTypes = ['', 'container_t', 'container_init_t', 'container_kvm_t', 'container_engine_t'];

type Expect = (isFine: boolean, field: string, expected: string, actual: unknown) => void;

/**
 * What Kubernetes' Pod Security Standard "restricted" (as of 1.37) refuses of a pod beyond what no pod in a machine of its
 * own can have (`podRefusals`). As there, what the pod says as a whole is refused also where its containers say better.
 */
export function restrictedViolations(
  spec: PodSpec,
  annotations: Readonly<Record<string, string>> = {},
): SecurityViolation[] {
  const found: SecurityViolation[] = [];
  const expect: Expect = (isFine, field, expected, actual) => {
    if (!isFine) found.push({ field, expected, actual: JSON.stringify(actual ?? null) });
  };
  for (const volume of spec.volumes ?? []) {
    const kind = Object.keys(volume).find((name) => name !== 'name') ?? 'emptyDir';
    expect(volumeKinds.includes(kind), `spec.volumes[${volume.name}]`, volumeKinds.join(', '), kind);
  }
  for (const { name } of spec.securityContext?.sysctls ?? [])
    expect(safeSysctls.has(name), 'spec.securityContext.sysctls', [...safeSysctls].join(', '), name);
  for (const [key, value] of Object.entries(annotations)) {
    if (!key.startsWith(appArmorPrefix)) continue;
    const isKnown = value === '' || value === 'runtime/default' || value.startsWith('localhost/');
    expect(isKnown, `metadata.annotations[${key}]`, 'runtime/default or localhost/…', value);
  }
  if (spec.securityContext !== undefined) expectRestrictedContext(spec.securityContext, 'spec.securityContext', expect);
  for (const list of ['initContainers', 'containers', 'ephemeralContainers'] as const) {
    for (const container of spec[list] ?? [])
      expectRestricted(container, spec, `spec.${list}[${container.name}]`, expect);
  }
  return found;
}

function expectRestricted(container: Container, { securityContext: pod }: PodSpec, of: string, expect: Expect): void {
  const own = container.securityContext;
  const field = `${of}.securityContext`;
  expect(
    own?.allowPrivilegeEscalation === false,
    `${field}.allowPrivilegeEscalation`,
    'false',
    own?.allowPrivilegeEscalation,
  );
  const nonRoot = own?.runAsNonRoot ?? pod?.runAsNonRoot;
  expect(nonRoot === true, `${field}.runAsNonRoot`, 'true', nonRoot);
  const capabilities = own?.capabilities;
  expect((capabilities?.drop ?? []).includes('ALL'), `${field}.capabilities.drop`, '["ALL"]', capabilities?.drop);
  const added = (capabilities?.add ?? []).filter((name) => name !== 'NET_BIND_SERVICE');
  expect(added.length === 0, `${field}.capabilities.add`, '["NET_BIND_SERVICE"] or nothing', capabilities?.add);
  const seccomp = own?.seccompProfile?.type ?? pod?.seccompProfile?.type;
  expect(seccomp !== undefined, `${field}.seccompProfile.type`, 'RuntimeDefault or Localhost', seccomp);
  if (own !== undefined) expectRestrictedContext(own, field, expect);
  for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe'] as const)
    expectNoHost(container[name], `${of}.${name}`, expect);
  for (const name of ['postStart', 'preStop'] as const)
    expectNoHost(container.lifecycle?.[name], `${of}.lifecycle.${name}`, expect);
}

/** What a security context may not say, of a pod or of a container. */
function expectRestrictedContext(context: PodSecurityContext | SecurityContext, field: string, expect: Expect): void {
  expect(context.runAsNonRoot !== false, `${field}.runAsNonRoot`, 'true', context.runAsNonRoot);
  expect(context.runAsUser !== 0, `${field}.runAsUser`, 'another user than 0', context.runAsUser);
  const seccomp = context.seccompProfile?.type;
  expect(
    ['RuntimeDefault', 'Localhost', undefined].includes(seccomp),
    `${field}.seccompProfile.type`,
    'RuntimeDefault or Localhost',
    seccomp,
  );
  const appArmor = context.appArmorProfile?.type;
  expect(
    ['RuntimeDefault', 'Localhost', undefined].includes(appArmor),
    `${field}.appArmorProfile.type`,
    'RuntimeDefault or Localhost',
    appArmor,
  );
  const label = context.seLinuxOptions;
  expect(
    seLinuxTypes.includes(label?.type ?? ''),
    `${field}.seLinuxOptions.type`,
    seLinuxTypes.slice(1).join(', '),
    label?.type,
  );
  expect((label?.user ?? '') + (label?.role ?? '') === '', `${field}.seLinuxOptions`, 'no user and no role', label);
}

/** A probe that the kubelet sends elsewhere than to the pod makes the node a scanner of its network. */
function expectNoHost(handler: Handler | undefined, field: string, expect: Expect): void {
  for (const kind of ['httpGet', 'tcpSocket'] as const) {
    const host = handler?.[kind]?.host ?? '';
    expect(host === '', `${field}.${kind}.host`, '""', host);
  }
}
