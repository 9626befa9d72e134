import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { locateOpa, readCases } from './cases.ts';
import { CaseRunner } from './run-case.ts';

const found = locateOpa();
const missing = 'missing' in found ? found.missing : undefined;
const listFile = new URL('./expected-failures.tsv', import.meta.url);

/** Set to record the list anew after a deliberate change of the engine; the difference is then to be reviewed. */
const record = process.env['SEALPOD_RECORD_CONFORMANCE'] === '1';

describe.skipIf(missing !== undefined)(`OPA's v1 conformance cases${missing ? ` (skipped: ${missing})` : ''}`, () => {
  it('fail where they are known to fail and nowhere else', { timeout: 180_000 }, async () => {
    const folder = 'folder' in found ? found.folder : '';
    const cases = readCases(folder);
    expect(cases.length).toBeGreaterThan(2000);
    const module = await WebAssembly.compile(readFileSync(new URL('../regorus.wasm', import.meta.url)));
    const runner = new CaseRunner(module);
    const failed = new Map(
      cases
        .flatMap((item) => [item].map(() => [item.id, runner.run(item)] as const))
        .filter(([, why]) => why !== undefined),
    );
    if (record) writeFileSync(listFile, [...failed].map(([id, why]) => `${id}\t${why}\n`).join(''));
    const known = new Set(
      readFileSync(listFile, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => line.split('\t')[0] ?? ''),
    );
    const newlyFailing = [...failed].filter(([id]) => !known.has(id));
    const newlyPassing = [...known].filter((id) => !failed.has(id));
    expect({ newlyFailing, newlyPassing }).toEqual({ newlyFailing: [], newlyPassing: [] });
    console.log(`OPA's cases: ${cases.length - failed.size} of ${cases.length} pass, ${known.size} are known to fail`);
  });
});
