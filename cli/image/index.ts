export { type BuildImageOptions, buildImage, type ImageEntry, type ImageProcess } from './build.ts';
export { type EncryptedImage, type EncryptImageOptions, encryptImage } from './encrypt.ts';
export { pushImage } from './push.ts';
export { type ImageLocation, parseImageLocation, type RegistryAccess } from './source.ts';
