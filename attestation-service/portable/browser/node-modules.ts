/**
 * Names of other modules of Node that verifiers' rooms import and that verification never calls.
 *
 * @module
 */
import { unsupported } from './unsupported.ts';

/** Of node:zlib; read only where initdata is unpacked. */
export const constants = {};
export const gunzipSync = unsupported('gunzipSync');
export const gzipSync = unsupported('gzipSync');
/** Called while modules are loaded, so that only the result may throw. */
export const promisify = (): (() => never) => unsupported('promisify');
