import { type UnsupportedFeature, unsupportedFeatures } from '@sealpod/protocol/unsupported';
import { stringify } from 'yaml';
import { runtimeName } from './containerd-config.ts';

/**
 * The RuntimeClass of the runtime. Its overhead is what a pod costs the node beside its machine: shim and adaptor. What
 * the machine itself takes is asked of the provider.
 */
export function runtimeClassManifest(): string {
  return stringify({
    apiVersion: 'node.k8s.io/v1',
    kind: 'RuntimeClass',
    metadata: { name: runtimeName },
    handler: runtimeName,
    overhead: { podFixed: { memory: '120Mi', cpu: '250m' } },
    scheduling: { nodeSelector: { 'sealpod.io/runtime': 'true' } },
  });
}

/** What a pod of the runtime class may not ask for, in the Common Expression Language. True where it does not. */
const refusals: Partial<Record<UnsupportedFeature, string>> = {
  hostNetwork: '!object.spec.?hostNetwork.orValue(false)',
  hostPID: '!object.spec.?hostPID.orValue(false)',
  hostIPC: '!object.spec.?hostIPC.orValue(false)',
  shareProcessNamespace: '!object.spec.?shareProcessNamespace.orValue(false)',
  hostPath: 'object.spec.?volumes.orValue([]).all(volume, !has(volume.hostPath))',
  privileged:
    '(object.spec.containers + object.spec.?initContainers.orValue([])).all(container, !container.?securityContext.?privileged.orValue(false))',
};

/**
 * Refuses at admission, in the API server itself, pods of the runtime class that no guest would run: the event of their
 * owner says why. The shim refuses them again.
 */
export function admissionPolicyManifests(): readonly string[] {
  const metadata = { name: 'sealpod.io-unsupported' };
  const policy = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicy',
    metadata,
    spec: {
      failurePolicy: 'Fail',
      matchConstraints: {
        resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
      },
      matchConditions: [
        { name: 'runtime-class', expression: `object.spec.?runtimeClassName.orValue('') == '${runtimeName}'` },
      ],
      validations: Object.entries(refusals).map(([feature, expression]) => ({
        expression,
        message: unsupportedFeatures[feature as UnsupportedFeature],
      })),
    },
  };
  const binding = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicyBinding',
    metadata,
    spec: { policyName: metadata.name, validationActions: ['Deny'] },
  };
  return [stringify(policy), stringify(binding)];
}

/** A systemd unit for the snapshotter, which has to run before containerd. */
export function snapshotterUnit(nodePath: string, programPath: string, configPath: string): string {
  return `[Unit]
Description=Snapshotter for images that only the guest pulls
Before=containerd.service

[Service]
ExecStart=${nodePath} --no-warnings ${programPath} --config ${configPath}
Restart=always
UMask=0077

[Install]
WantedBy=multi-user.target
`;
}
