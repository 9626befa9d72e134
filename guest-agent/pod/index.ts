export type { ImagePuller } from './image-puller.ts';
export { createPodService } from './service.ts';
