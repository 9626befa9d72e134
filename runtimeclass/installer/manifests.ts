import { singleNodeManifests } from '@sealpod/deployment';
import { stringify } from 'yaml';
import { runtimeName } from './containerd-config.ts';
import type { ContainerdRelease } from './containerd-version.ts';

/** Before 2.0 containerd learns from this annotation alone whose snapshotter pulls a pod's images. */
const runtimeHandlerAnnotation = 'io.containerd.cri.runtime-handler';

/** What the webhook does where there is one (Kubernetes 1.36 or newer). */
function runtimeHandlerPolicy(): readonly object[] {
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const metadata = { name: 'sealpod.io-runtime-handler' };
  const runtimeClass = 'object.spec.runtimeClassName';
  const annotations = JSON.stringify({ [runtimeHandlerAnnotation]: runtimeName });
  return [
    {
      apiVersion,
      kind: 'MutatingAdmissionPolicy',
      metadata,
      spec: {
        matchConstraints: {
          resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
        },
        matchConditions: [
          { name: 'sealed', expression: `has(${runtimeClass}) && ${runtimeClass} == '${runtimeName}'` },
        ],
        failurePolicy: 'Fail',
        reinvocationPolicy: 'IfNeeded',
        mutations: [
          {
            patchType: 'ApplyConfiguration',
            applyConfiguration: { expression: `Object{metadata: Object.metadata{annotations: ${annotations}}}` },
          },
        ],
      },
    },
    { apiVersion, kind: 'MutatingAdmissionPolicyBinding', metadata, spec: { policyName: metadata.name } },
  ];
}

/**
 * What is applied to the cluster for a runtime that was installed by hand: RuntimeClass and admission policies, as YAML.
 *
 * @param release of the node's containerd
 */
export function clusterManifests(release: ContainerdRelease): string {
  return [...singleNodeManifests(), ...(release === '2' ? [] : runtimeHandlerPolicy())]
    .map((manifest) => stringify(manifest))
    .join('---\n');
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
