export { type Alteration, type AlterOptions, alterPodVmImage } from './alter.ts';
export { type BuildOptions, buildPodVmImage, packagedNode } from './build.ts';
export { findProgram, libraryClosure } from './libraries.ts';
export { diskName, type Manifest, manifestName, readManifest } from './manifest.ts';
export { type MeasureOptions, measurePodVmImage, type ReferenceValues, referenceValuesName } from './measure.ts';
export { createTpmAuthority, type Owner, type TpmAuthority, type TpmAuthorityCertificates } from './tpm-authority.ts';
export { removeAbandonedWork, temporaryWork } from './work-directory.ts';
