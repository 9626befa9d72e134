/**
 * Builds `regorus.wasm` from `engine/`, or checks the committed one.
 *
 *   node rego/scripts/build.ts           builds, and writes regorus.wasm, its .sha256 and engine/build-record.json
 *   node rego/scripts/build.ts --check   always compares hash and sources; where the recorded toolchain is installed
 *                                        (Debian: rustc-web rust-web-src cargo-web lld-22), rebuilds and compares bit by bit
 *
 * The result does not depend on the folder, the cargo home or the paths of the toolchain: all of them are remapped.
 *
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const room = resolve(import.meta.dirname, '..');
const engine = join(room, 'engine');
const target = 'wasm32-unknown-unknown';
const linkerNames = ['wasm-ld-22', 'wasm-ld'];
const stackBytes = 2 * 1024 * 1024;

interface BuildRecord {
  /** `rustc -vV`, line by line. */
  readonly rustc: readonly string[];
  /** First line of the linker's `--version`. */
  readonly linker: string;
  /** SHA-256 over path and content of everything in `engine/` that the build reads. */
  readonly sources: string;
}

interface Toolchain {
  readonly rustc: string;
  readonly cargo: string;
  readonly linker: string;
  readonly record: Pick<BuildRecord, 'rustc' | 'linker'>;
}

function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

function sourcesDigest(): string {
  const inputs = ['Cargo.toml', 'Cargo.lock', 'src', 'stubs'].flatMap((name) => {
    const path = join(engine, name);
    return statSync(path).isDirectory() ? filesBelow(path) : [path];
  });
  const lines = inputs.map((path) => `${sha256(readFileSync(path))}  ${relative(engine, path)}\n`);
  return sha256(lines.sort().join(''));
}

function firstOutput(command: string, arguments_: readonly string[]): string | undefined {
  const run = spawnSync(command, arguments_, { encoding: 'utf8' });
  return run.status === 0 ? run.stdout.trimEnd() : undefined;
}

/** The first complete toolchain of this machine, one that matches `wanted` before others. */
function findToolchain(wanted?: BuildRecord): Toolchain | undefined {
  const found: Toolchain[] = [];
  for (const folder of [process.env['SEALPOD_RUST'], '/usr/bin', join(homedir(), '.cargo/bin')]) {
    if (folder === undefined) continue;
    const rustc = join(folder, 'rustc');
    const version = firstOutput(rustc, ['-vV']);
    const sysroot = firstOutput(rustc, ['--print', 'sysroot']);
    if (version === undefined || sysroot === undefined) continue;
    if (!existsSync(join(sysroot, 'lib/rustlib/src/rust/library/Cargo.toml'))) continue;
    for (const linker of linkerNames) {
      const linkerVersion = firstOutput(linker, ['--version'])?.split('\n')[0];
      if (linkerVersion === undefined) continue;
      found.push({
        rustc,
        cargo: join(folder, 'cargo'),
        linker,
        record: { rustc: version.split('\n'), linker: linkerVersion },
      });
    }
  }
  return wanted === undefined ? found[0] : found.find((toolchain) => sameToolchain(toolchain.record, wanted));
}

function sameToolchain(a: Toolchain['record'], b: Toolchain['record']): boolean {
  return a.linker === b.linker && a.rustc.join('\n') === b.rustc.join('\n');
}

/** Compiles the engine in a scratch folder and returns the module's bytes. Takes minutes. */
function compile(toolchain: Toolchain): Buffer {
  const output = mkdtempSync(join(tmpdir(), 'sealpod-rego-build-'));
  const cargoHome = process.env['CARGO_HOME'] ?? join(homedir(), '.cargo');
  const sysroot = execFileSync(toolchain.rustc, ['--print', 'sysroot'], { encoding: 'utf8' }).trim();
  const registries = join(cargoHome, 'registry/src');
  execFileSync(toolchain.cargo, ['fetch', '--locked', '--target', target], { cwd: engine, stdio: 'inherit' });
  // The longest path goes last: the last match wins.
  const remaps: [from: string, to: string][] = [
    [cargoHome, '/cargo'],
    ...readdirSync(registries).map((name): [string, string] => [join(registries, name), '/cargo']),
    [output, '/out'],
    [engine, '/engine'],
    [join(sysroot, 'lib/rustlib/src/rust'), '/rust'],
  ];
  const flags = [
    '-Clink-arg=--import-memory',
    `-Clink-arg=-zstack-size=${stackBytes}`,
    ...remaps.map(([from, to]) => `--remap-path-prefix=${from}=${to}`),
  ];
  try {
    execFileSync(
      toolchain.cargo,
      ['build', '--release', '--locked', '--target', target, '-Zbuild-std=std,panic_abort', '--target-dir', output],
      {
        cwd: engine,
        stdio: 'inherit',
        env: {
          ...process.env,
          RUSTC: toolchain.rustc,
          // -Zbuild-std is unstable; standard library and compiler are of one source package.
          RUSTC_BOOTSTRAP: '1',
          CARGO_INCREMENTAL: '0',
          SOURCE_DATE_EPOCH: '0',
          CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: toolchain.linker,
          CARGO_ENCODED_RUSTFLAGS: flags.join('\u001f'),
        },
      },
    );
    return readFileSync(join(output, target, 'release/sealpod_rego_engine.wasm'));
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
}

const wasmPath = join(room, 'regorus.wasm');
const hashPath = join(room, 'regorus.wasm.sha256');
const recordPath = join(engine, 'build-record.json');

function build(): void {
  const toolchain = findToolchain();
  if (toolchain === undefined) {
    throw new Error(
      'no Rust toolchain with library sources and wasm-ld: apt-get install rustc-web rust-web-src cargo-web lld-22',
    );
  }
  const wasm = compile(toolchain);
  const record: BuildRecord = { ...toolchain.record, sources: sourcesDigest() };
  writeFileSync(wasmPath, wasm);
  writeFileSync(hashPath, `${sha256(wasm)}  regorus.wasm\n`);
  writeFileSync(recordPath, `${JSON.stringify(record, undefined, 2)}\n`);
  console.log(`regorus.wasm ${wasm.length} bytes, sha256 ${sha256(wasm)}`);
}

function check(rebuild: boolean): void {
  const committed = readFileSync(wasmPath);
  const recorded = readFileSync(hashPath, 'utf8').split(' ')[0];
  const record = JSON.parse(readFileSync(recordPath, 'utf8')) as BuildRecord;
  if (sha256(committed) !== recorded) {
    throw new Error(`regorus.wasm has sha256 ${sha256(committed)}, regorus.wasm.sha256 says ${recorded}`);
  }
  if (sourcesDigest() !== record.sources) {
    throw new Error(
      'engine/ differs from the sources that regorus.wasm was built from: run node rego/scripts/build.ts',
    );
  }
  console.log(`regorus.wasm: hash and sources are as recorded (${recorded})`);
  if (!rebuild) return;
  const toolchain = findToolchain(record);
  if (toolchain === undefined) {
    console.log(
      `NOTICE: rebuild skipped, the recorded toolchain is not installed: ${record.rustc[0]}, ${record.linker}`,
    );
    return;
  }
  const rebuilt = compile(toolchain);
  if (!rebuilt.equals(committed)) {
    throw new Error(`the rebuilt module has sha256 ${sha256(rebuilt)}, the committed one ${recorded}`);
  }
  console.log('regorus.wasm: the rebuilt module is identical');
}

const { values } = parseArgs({
  options: { check: { type: 'boolean', default: false }, 'no-rebuild': { type: 'boolean', default: false } },
});
if (values.check) check(!values['no-rebuild']);
else build();
