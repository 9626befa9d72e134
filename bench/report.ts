import type { Machine } from './machine.ts';
import type { Figure, Measured } from './measure.ts';

/** A case with what came of it. */
export interface CaseResult {
  readonly name: string;
  readonly definition: string;
  readonly seconds: number;
  readonly measured?: Measured;
  /** Why it was not measured. */
  readonly skipped?: string;
  /** Why it failed. */
  readonly failure?: string;
}

export interface Report {
  readonly machine: Machine;
  readonly results: readonly CaseResult[];
}

/** The report as text for people. */
export function renderText({ machine, results }: Report): string {
  return [...machineLines(machine), ...results.flatMap((result) => ['', ...caseLines(result)]), ''].join('\n');
}

function machineLines(machine: Machine): string[] {
  const { processors, processor, memoryMiB, kernel, accelerator, load, node, programs, date } = machine;
  const versions = Object.entries(programs).map(([name, version]) => `${name} ${version ?? 'not installed'}`);
  return [
    `${processors} × ${processor}, ${memoryMiB} MiB, Linux ${kernel}, machines run on ${accelerator}`,
    `Node ${node}; ${versions.join(', ')}`,
    `${date}, load before the first case ${load.toFixed(2)}`,
  ];
}

function caseLines({ name, definition, seconds, measured, skipped, failure }: CaseResult): string[] {
  const head = [`${name} (${seconds.toFixed(0)} s): ${definition}`];
  if (skipped !== undefined) return [...head, `  skipped: ${skipped}`];
  if (failure !== undefined) return [...head, `  FAILED: ${failure}`];
  if (measured === undefined) return head;
  const rows = measured.figures.map((figure) => [
    figure.name,
    withUnit(figure),
    `[${shown(figure.smallest)}, ${shown(figure.largest)}]`,
    `of ${figure.runs}`,
  ]);
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const padded = ([name = '', ...columns]: readonly string[]): string =>
    ['', name.padEnd(widths[0] ?? 0), ...columns.map((text, at) => text.padStart(widths[at + 1] ?? 0))].join('  ');
  return [
    ...head,
    ...rows.map(padded),
    ...measured.ratios.map(
      ({ ours, peer, value }) =>
        `  ratio ${value.toFixed(2)} = ${ours.name} ${withUnit(ours)} / ${peer.name} ${withUnit(peer)}`,
    ),
    ...measured.notes.map((note) => `  ${note}`),
  ];
}

function withUnit({ median, unit }: Figure): string {
  return `${shown(median)} ${unit}`;
}

/** Three significant digits are more than these figures are good for. */
function shown(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
