export { type LayerChanges, LayerUnpacker } from './layer-unpacker.ts';
export { defaultUnpackLimits, UnpackBudget, type UnpackLimits } from './limits.ts';
export { createRootfs, mergeLayer } from './merge.ts';
export { SpecialFiles, type SpecialFileTools } from './special-files.ts';
