import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build } from 'esbuild';

const room = fileURLToPath(new URL('..', import.meta.url));
const rego = fileURLToPath(new URL('.', import.meta.resolve('@sealpod/rego')));

/**
 * Bundles the attestation service into `directory`, to run without dependencies as `node main.mjs --config FILE`: the
 * program in parts (a process that only watches over workers loads few of them), the policy worker, the policy engine and
 * the built-in policies. A worker of it takes half the memory of one that runs from source.
 *
 * @returns path of the program
 */
export async function bundleAttestationService(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  const options: BuildOptions = {
    outdir: directory,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    minify: true,
    keepNames: true,
    legalComments: 'none',
    logLevel: 'warning',
    // What grpc-js and express need is CommonJS and loads Node's own modules by require.
    banner: {
      js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
    },
  };
  await build({ ...options, entryPoints: { main: join(room, 'main.ts') }, splitting: true });
  await build({ ...options, entryPoints: { 'rego-worker': join(rego, 'worker.ts') } });
  await copyFile(join(rego, 'regorus.wasm'), join(directory, 'regorus.wasm'));
  const policies = (await readdir(join(room, 'policy'))).filter((file) => file.endsWith('.rego'));
  for (const file of policies) await copyFile(join(room, 'policy', file), join(directory, file));
  return join(directory, 'main.mjs');
}
