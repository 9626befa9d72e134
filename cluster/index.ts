/**
 * A disposable single-node Kubernetes for development and tests: real programs, built from Go modules, no container
 * engine needed.
 *
 * @module
 */
export { buildClusterPrograms } from './build.ts';
export {
  allowPlainRegistry,
  type ClusterStatus,
  clusterStatus,
  recordDaemon,
  restartContainerd,
  startCluster,
  stopCluster,
} from './cluster.ts';
export { nodeName } from './configuration.ts';
export { type ControlPlane, startControlPlane } from './control-plane.ts';
export { newestRelease, releaseOf, releases } from './releases.ts';
export { type ClusterState, readClusterState } from './state.ts';
export { directVolumesFolder } from './volume-traces.ts';
