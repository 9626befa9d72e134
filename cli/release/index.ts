export { buildReleaseImages, type ReleaseImage, type ReleaseOptions } from './images.ts';
export { releaseVersion } from './programs.ts';
