export {
  type DevelopmentOptions,
  developmentContainerdConfig,
  runtimeName,
  snapshotterName,
} from './containerd-config.ts';
export { type ContainerdRelease, containerdRelease, detectContainerd } from './containerd-version.ts';
export { type Installation, type InstallOptions, installRuntime, uninstallRuntime } from './install.ts';
export { startupSnapshotName, writeStartupSnapshot } from './startup-snapshot.ts';
