import { type UnsupportedFeature, unsupportedFeatures } from '@sealpod/protocol/unsupported';
import type { Container, PodSecurityContext, PodSpec, SecurityContext } from './kubernetes/types.ts';

/** Something a pod asks for and cannot have. */
export interface Refusal {
  /** Stable name of the rule. */
  readonly rule: UnsupportedFeature;
  /** Path of the field in the pod. */
  readonly field: string;
  readonly message: string;
}

/**
 * What of a pod the guest or the shim would refuse, found early. An empty list says nothing about the rest: the guest
 * decides again, by its measured policy.
 */
export function podRefusals(spec: PodSpec): Refusal[] {
  const found: Refusal[] = [];
  const refuse = (rule: UnsupportedFeature, field: string): void => {
    found.push({ rule, field, message: unsupportedFeatures[rule] });
  };
  if (spec.hostNetwork === true) refuse('hostNetwork', 'spec.hostNetwork');
  if (spec.hostPID === true) refuse('hostPID', 'spec.hostPID');
  if (spec.hostIPC === true) refuse('hostIPC', 'spec.hostIPC');
  if (spec.shareProcessNamespace === true) refuse('shareProcessNamespace', 'spec.shareProcessNamespace');
  if (spec.hostUsers === false) refuse('userNamespace', 'spec.hostUsers');
  if (spec.os?.name === 'windows') refuse('windows', 'spec.os.name');
  refuseProfiles(spec.securityContext, 'spec.securityContext', refuse);
  for (const volume of spec.volumes ?? []) {
    if (volume['hostPath'] !== undefined) refuse('hostPath', `spec.volumes[${volume.name}].hostPath`);
  }
  for (const list of ['initContainers', 'containers', 'ephemeralContainers'] as const) {
    for (const container of spec[list] ?? []) refuseContainer(container, `spec.${list}[${container.name}]`, refuse);
  }
  return found;
}

function refuseContainer(
  container: Container,
  field: string,
  refuse: (rule: UnsupportedFeature, field: string) => void,
): void {
  const context = container.securityContext;
  refuseProfiles(context, `${field}.securityContext`, refuse);
  if (context?.privileged === true) refuse('privileged', `${field}.securityContext.privileged`);
  if ((context?.capabilities?.add ?? []).some((name) => /^(CAP_)?ALL$/i.test(name)))
    refuse('allCapabilities', `${field}.securityContext.capabilities.add`);
  if (context?.procMount !== undefined && context.procMount !== 'Default')
    refuse('unmaskedProc', `${field}.securityContext.procMount`);
  for (const port of container.ports ?? []) {
    if (port.hostPort !== undefined && port.hostPort !== 0) refuse('hostPort', `${field}.ports`);
  }
  for (const mount of container.volumeMounts ?? []) {
    if (mount.mountPropagation !== undefined && mount.mountPropagation !== 'None')
      refuse('mountPropagation', `${field}.volumeMounts[${mount.mountPath}].mountPropagation`);
  }
}

/** What stands in the security context of a pod and of a container alike. */
function refuseProfiles(
  context: PodSecurityContext | SecurityContext | undefined,
  field: string,
  refuse: (rule: UnsupportedFeature, field: string) => void,
): void {
  if ((context?.seccompProfile?.type ?? 'RuntimeDefault') !== 'RuntimeDefault')
    refuse('seccompProfile', `${field}.seccompProfile`);
  if (context?.appArmorProfile?.type === 'Localhost') refuse('appArmorProfile', `${field}.appArmorProfile`);
  if (context?.windowsOptions?.hostProcess === true) refuse('windows', `${field}.windowsOptions`);
}
