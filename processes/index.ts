/**
 * Background processes: start one and know that it serves, tell it from a later process with its pid, find and end it.
 *
 * @module
 */
export { type Daemon, type DaemonSpecification, startDaemon, stopDaemon } from './daemon.ts';
export {
  commandLineOf,
  endProcess,
  findProcesses,
  identityOf,
  isRunning,
  type ProcessIdentity,
  type ProcessPattern,
} from './identity.ts';
export { type Lock, takeLock, waitForLock } from './lock.ts';
export { shimsOf } from './shims.ts';
export { killDescendants, killProcess, type RunningProcess, runningProcesses, sharesRoot } from './table.ts';
