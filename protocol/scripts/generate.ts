/**
 * Generates the protobuf code under `protocol/gen` from `protocol/proto`: offline, and byte for byte the same each time.
 *
 * `node protocol/scripts/generate.ts [output folder]`
 *
 * @module
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';

const protocolFolder = resolve(import.meta.dirname, '..');
const binaries = resolve(protocolFolder, '../node_modules/.bin');

/** Runs buf with protoc-gen-es and puts the result in `output`, replacing it. Throws where buf refuses a .proto file. */
export function generate(output: string): void {
  // Next to the output, so that the finished folder can be renamed into place.
  const temporary = mkdtempSync(join(dirname(output), '.gen-'));
  try {
    const template = {
      version: 'v2',
      inputs: [{ directory: join(protocolFolder, 'proto') }],
      plugins: [
        {
          local: join(binaries, 'protoc-gen-es'),
          out: join(temporary, 'gen'),
          opt: ['target=ts', 'import_extension=ts'],
        },
      ],
    };
    execFileSync(join(binaries, 'buf'), ['generate', '--template', JSON.stringify(template)], {
      cwd: protocolFolder,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: {
        ...process.env,
        PATH: `${binaries}${delimiter}${process.env['PATH'] ?? ''}`,
        BUF_CACHE_DIR: join(temporary, 'cache'),
      },
    });
    eraseEnums(join(temporary, 'gen'));
    rmSync(output, { recursive: true, force: true });
    renameSync(join(temporary, 'gen'), output);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/**
 * Rewrites each `enum` as a frozen-by-type object and the union of its values: Node runs only TypeScript that can be
 * erased, and an enum cannot. Code that uses the enum's members does not notice.
 */
function eraseEnums(folder: string): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const text = readFileSync(path, 'utf8');
    const erased = text.replace(/^export enum (\w+) \{\n(.*?)^\}$/gms, (_, name: string, members: string) => {
      const object = members.replace(/^( +\w+) = (-?\d+),$/gm, '$1: $2,');
      return `export const ${name} = {\n${object}} as const;\nexport type ${name} = (typeof ${name})[keyof typeof ${name}];`;
    });
    if (erased !== text) writeFileSync(path, erased);
  }
}

if (import.meta.main) generate(resolve(process.argv[2] ?? join(protocolFolder, 'gen')));
