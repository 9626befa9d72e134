import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

/** The release of OPA whose cases are run, and the Go module checksum of its sources. */
const opa = { version: 'v1.22.0', sum: 'h1:CwxTSHfk5GmA1CaySVWyxRvggY2xZYxKL6bhDuWOCuU=' };
const casesFolder = 'v1/test/cases/testdata/v1';
const downloadTimeoutMs = 120_000;

/** One case of OPA's suite (v1/test/cases/cases.go), as far as it is used. */
export interface ConformanceCase {
  /** Folder, file and number: unique. */
  readonly id: string;
  readonly note: string;
  readonly query: string;
  readonly modules?: readonly string[];
  readonly data?: Record<string, unknown>;
  readonly input?: unknown;
  readonly input_term?: string;
  readonly want_defined?: boolean;
  readonly want_result?: readonly Record<string, unknown>[];
  readonly want_error?: string;
  readonly want_error_code?: string;
  readonly sort_bindings?: boolean;
  readonly strict_error?: boolean;
  readonly ignore_generated_vars?: boolean;
}

/** Brings OPA's sources into Go's module cache and returns their folder, or why that is not possible. */
export function locateOpa(): { readonly folder: string } | { readonly missing: string } {
  try {
    const arguments_ = ['mod', 'download', '-json', `github.com/open-policy-agent/opa@${opa.version}`];
    const options: ExecFileSyncOptionsWithStringEncoding = {
      encoding: 'utf8',
      timeout: downloadTimeoutMs,
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe'],
    };
    const { Dir, Sum } = JSON.parse(execFileSync('go', arguments_, options)) as { Dir: string; Sum: string };
    if (Sum !== opa.sum) return { missing: `OPA ${opa.version} has checksum ${Sum}, not ${opa.sum}` };
    return { folder: join(Dir, casesFolder) };
  } catch (thrown) {
    return { missing: `OPA's cases cannot be had by \`go mod download\`: ${String(thrown).split('\n')[0]}` };
  }
}

/** All cases below a folder, in a fixed order. */
export function readCases(folder: string): ConformanceCase[] {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.yaml'));
  return files.sort().flatMap((name) => {
    const { cases } = parse(readFileSync(join(folder, name), 'utf8')) as {
      cases: Omit<ConformanceCase, 'id'>[];
    };
    return cases.map((item, index) => ({ ...item, id: `${name.replace(/\.yaml$/, '')}#${index + 1}` }));
  });
}
