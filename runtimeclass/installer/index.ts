export {
  type DevelopmentOptions,
  developmentContainerdConfig,
  runtimeName,
  snapshotterName,
} from './containerd-config.ts';
