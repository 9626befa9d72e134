import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const browser = (file: string): string => fileURLToPath(new URL(`browser/${file}`, import.meta.url));

/**
 * Modules of these packages only declare classes and functions, without saying so to bundlers: those that nothing uses
 * are left out.
 */
const declarationsOnly = /^(@peculiar\/(asn1-x509|asn1-rsa|asn1-schema|utils)|pvtsutils|pvutils)(\/|$)/;

/** What esbuild found for an import, with the mark that the package lacks. Relative imports are those inside a package. */
const withoutUnusedModules: Plugin = {
  name: 'without-unused-modules',
  setup: ({ onResolve, resolve }) => {
    onResolve({ filter: /./ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
      const inside = path.startsWith('.') && declarationsOnly.test(importer.split('node_modules/').at(-1) ?? '');
      if (pluginData === 'again' || kind === 'entry-point' || !(declarationsOnly.test(path) || inside))
        return undefined;
      const found = await resolve(path, { kind, importer, resolveDir, pluginData: 'again' });
      return found.errors.length > 0 ? { errors: found.errors } : { ...found, sideEffects: false };
    });
  },
};

/** What a page has to load, at most. */
export const maxBundleBytes = 300_000;

/**
 * Bundles the portable entry point for browsers: `format` `esm`, or `iife` which sets the global `sealpod`.
 *
 * @returns the minified text
 */
export async function bundlePortable(format: 'esm' | 'iife' = 'esm'): Promise<string> {
  const options = {
    entryPoints: [fileURLToPath(new URL('index.ts', import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
    format,
    ...(format === 'iife' ? { globalName: 'sealpod' } : {}),
    platform: 'browser',
    // Modules of ECMAScript before a package's CommonJS for browsers, of which nothing can be left out.
    mainFields: ['module', 'browser', 'main'],
    target: 'es2022',
    legalComments: 'none',
    alias: {
      'node:crypto': browser('crypto.ts'),
      'node:util': browser('node-modules.ts'),
      'node:zlib': browser('node-modules.ts'),
    },
    inject: [browser('buffer.ts')],
    plugins: [withoutUnusedModules],
    logLevel: 'silent',
  } as const satisfies BuildOptions;
  const { outputFiles } = await build(options);
  return outputFiles[0]?.text ?? '';
}
