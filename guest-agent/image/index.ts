export { type ImageConfiguration, parseImageConfiguration } from './configuration.ts';
export { createKeyUnwrapper, type GetResource, type UnwrapKey } from './layer-keys.ts';
export { createOverlayMounter, type OverlayMount, type OverlayMounter } from './overlay.ts';
export { endpointsFor, type RegistryRule } from './registry-rules.ts';
export {
  type ConfiguredText,
  createImageStore,
  type ImageStore,
  type ImageStoreOptions,
  type PulledImage,
} from './store.ts';
