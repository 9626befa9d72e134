import { fileURLToPath } from 'node:url';
import { type BuildOptions, build } from 'esbuild';

const browser = (file: string): string => fileURLToPath(new URL(`browser/${file}`, import.meta.url));

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
    target: 'es2022',
    legalComments: 'none',
    alias: {
      'node:crypto': browser('crypto.ts'),
      'node:util': browser('node-modules.ts'),
      'node:zlib': browser('node-modules.ts'),
    },
    inject: [browser('buffer.ts')],
    logLevel: 'silent',
  } as const satisfies BuildOptions;
  const { outputFiles } = await build(options);
  return outputFiles[0]?.text ?? '';
}
