export type { ImageConfig, ImagePuller } from './image-puller.ts';
export { guestPaths, type PodPaths } from './paths.ts';
export { createPodService, type PodService, type PodServiceOptions } from './service.ts';
export type { SecretUnsealer } from './unsealing.ts';
