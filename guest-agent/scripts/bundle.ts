import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SealpodError } from '@sealpod/protocol/errors';
import { build, type Metafile, type Plugin, type StdinOptions } from 'esbuild';

/** What of the repository and its packages must never be in a guest: servers, clients and tools of the host. */
const forbidden = [
  /(^|\/)kbs\//,
  /(^|\/)storage\//,
  /(^|\/)attestation-service\//,
  /(^|\/)testing\//,
  /\.test\.ts$/,
  /node_modules\/(express|pino|zod|@grpc\/grpc-js|@peculiar\/x509|commander|reflect-metadata|esbuild)\//,
];

const root = fileURLToPath(new URL('../../', import.meta.url));
const terminalPackage = '@lydell/node-pty';
const nativeTerminal = 'pty.node';

/** The files of a bundle, as paths below its directory, and what of the repository they were made of. */
export interface GuestAgentBundle {
  readonly files: readonly string[];
  readonly inputs: readonly string[];
}

/**
 * Writes the guest agent as the pod VM image takes it (its `/sealpod`): the agent, the policy worker with its engine, and
 * the terminal support that is loaded with the first terminal. Equal sources give equal bytes.
 *
 * @throws SealpodError INTERNAL where a source of the host's side got into the bundle
 */
export async function bundleGuestAgent(outputDirectory: string): Promise<GuestAgentBundle> {
  await mkdir(outputDirectory, { recursive: true });
  const agent = await bundleModule('guest-agent/main.ts', join(outputDirectory, 'guest-agent.mjs'), [
    terminalBesideBundle,
  ]);
  const worker = await bundleModule('rego/worker.ts', join(outputDirectory, 'rego-worker.mjs'));
  const terminal = await bundleModule(
    { contents: `export { spawn } from '${terminalPackage}';`, resolveDir: join(root, 'guest-agent') },
    join(outputDirectory, 'terminal.mjs'),
    [binaryBesideBundle],
  );
  await copyFile(join(root, 'rego/regorus.wasm'), join(outputDirectory, 'regorus.wasm'));
  const binary = createRequire(import.meta.url).resolve(`${terminalPackage}-linux-x64/${nativeTerminal}`);
  await copyFile(binary, join(outputDirectory, nativeTerminal));
  // Modules without a package.json beside them would make Node guess; the name ends in .mjs, this says the rest.
  await writeFile(
    join(outputDirectory, 'package.json'),
    '{"name":"sealpod-guest-agent","private":true,"type":"module"}\n',
  );
  const files = ['guest-agent.mjs', 'package.json', nativeTerminal, 'rego-worker.mjs', 'regorus.wasm', 'terminal.mjs'];
  for (const file of files) await chmod(join(outputDirectory, file), 0o644);
  const all = [agent, worker, terminal].flatMap((metafile) => Object.keys(metafile.inputs));
  const inputs = [...new Set(all)].filter((input) => !input.startsWith('node-module:')).sort();
  requireGuestSources(inputs);
  return { files, inputs };
}

/** @throws SealpodError INTERNAL naming what does not belong into a guest */
export function requireGuestSources(inputs: readonly string[]): void {
  const found = inputs.filter((input) => forbidden.some((pattern) => pattern.test(input)));
  if (found.length > 0) {
    throw new SealpodError('INTERNAL', 'the guest bundle holds sources of the host', { actual: found.join(', ') });
  }
}

async function bundleModule(entry: string | StdinOptions, outfile: string, plugins: Plugin[] = []): Promise<Metafile> {
  const result = await build({
    ...(typeof entry === 'string' ? { entryPoints: [entry] } : { stdin: entry }),
    absWorkingDir: root,
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    plugins: [...plugins, nodeModulesByProperty],
    external: [`./${nativeTerminal}`],
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    metafile: true,
    logLevel: 'silent',
    // Packages in CommonJS call `require` for Node's own modules, which an ES module does not have.
    banner: { js: "const require=process.getBuiltinModule('node:module').createRequire(import.meta.url);" },
  });
  return result.metafile;
}

/**
 * Takes Node's own modules by property instead of by `import`. An `import` reads every export once, and so loads what
 * stands behind lazy ones: `node:http` alone brings a whole HTTP client and WebSocket. That was a third of the
 * agent's start.
 */
const nodeModulesByProperty: Plugin = {
  name: 'node-modules-by-property',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^node:/ }, ({ path }) => ({ path, namespace: 'node-module', sideEffects: false }));
    onLoad({ filter: /.*/, namespace: 'node-module' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
      loader: 'js',
    }));
  },
};

/** Leaves the terminal package out of the agent: it is a file of its own, read when somebody asks for a terminal. */
const terminalBesideBundle: Plugin = {
  name: 'terminal-beside-bundle',
  setup({ onResolve }) {
    onResolve({ filter: /^@lydell\/node-pty$/ }, () => ({ path: './terminal.mjs', external: true }));
  },
};

/** The terminal package looks for its binary in a package of its own; here it lies beside the bundle. */
const binaryBesideBundle: Plugin = {
  name: 'binary-beside-bundle',
  setup({ onLoad }) {
    onLoad({ filter: /node-pty\/requireBinary\.js$/ }, () => ({
      contents: `exports.requireBinary = () => require('./${nativeTerminal}');`,
      loader: 'js',
    }));
  },
};
