/**
 * QEMU, the software TPM and the firmware as a tree that runs on any distribution.
 *
 * @module
 */
export { extractHostPackages, firmwarePath, writeHostTools } from './host-tools.ts';
