import type { SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';

/** How results are written: a table for people, JSON for programs. */
export type OutputFormat = 'table' | 'json';

/** Writes one result: `rows` as a table with `columns`, or `value` as JSON where that was asked for. */
export function writeResult(
  format: OutputFormat,
  value: unknown,
  columns: readonly string[],
  rows: readonly (readonly string[])[],
): void {
  if (format === 'json') process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  else process.stdout.write(table(columns, rows));
}

/** Lays rows out in columns as wide as their widest cell; an empty list says so. */
export function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return 'none\n';
  const lines = [columns.map((column) => column.toUpperCase()), ...rows];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => (line[index] ?? '').length)));
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, index) => cell.padEnd(widths[index] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

/** What an operator is told of a failure: code, message, expected, actual, cause chain, advice. */
export function describeError(error: SealpodError): string {
  const { expected, actual, source, correlationId } = error.detail;
  const lines = [`error ${error.code}: ${error.message}`];
  if (expected !== undefined) lines.push(`  expected: ${expected}`);
  if (actual !== undefined) lines.push(`  actual:   ${actual}`);
  if (source !== undefined) lines.push(`  source:   ${source}`);
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) lines.push(`  cause:    ${cause.message}`);
  lines.push(`  to do:    ${fixOf(error)}`);
  if (correlationId !== undefined) lines.push(`  explain:  sealpod explain ${correlationId}`);
  return `${lines.join('\n')}\n`;
}

/** The same failure for programs. */
export function errorAsJson(error: SealpodError): string {
  return `${JSON.stringify({ error: { code: error.code, message: error.message, ...error.detail, fix: fixOf(error) } })}\n`;
}
