export { advertiseCapacity, type CapacityOptions } from './capacity.ts';
export { type EventLog, type PublishOptions, publishPodEvents } from './publish.ts';
export { type EventSelection, loadKubeConfig, readPodStarts } from './read.ts';
export { readMetrics, readSandboxes, readTpmAuthority } from './status-client.ts';
