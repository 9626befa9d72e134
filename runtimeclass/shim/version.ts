import packageManifest from '../package.json' with { type: 'json' };

/** The release this shim belongs to. */
export const release: string = packageManifest.version;
