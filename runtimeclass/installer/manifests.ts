import { singleNodeManifests } from '@sealpod/deployment';
import { stringify } from 'yaml';

/** What is applied to the cluster for a runtime that was installed by hand: RuntimeClass and admission policy, as YAML. */
export function clusterManifests(): string {
  return singleNodeManifests()
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
