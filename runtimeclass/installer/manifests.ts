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
