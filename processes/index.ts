/**
 * Background processes: start one and know that it serves, tell it from a later process with its pid, end it.
 *
 * @module
 */
export { type Daemon, type DaemonSpecification, isRunning, startDaemon, stopDaemon } from './daemon.ts';
export { processStartTime } from './identity.ts';
export { killDescendants, killProcess, type RunningProcess, runningProcesses } from './table.ts';
