export { findAccelerator } from './acceleration.ts';
export { findFirmware } from './firmware.ts';
export { type Accelerator, defaultShape, type MachineShape } from './machine.ts';
export { createQemuProvider, defaultOwner, type QemuProviderOptions } from './provider.ts';
