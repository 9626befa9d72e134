import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SealpodError } from '@sealpod/protocol/errors';

/** The chart of this release. */
export const chartDirectory = fileURLToPath(new URL('../../runtimeclass/chart', import.meta.url));
export const releaseName = 'sealpod';

/** Which cluster, and where in it. */
export interface Target {
  /** File; without it Helm's own rules say which (KUBECONFIG, ~/.kube/config). */
  readonly kubeconfig?: string;
  readonly namespace: string;
}

/** What the chart is rendered with. */
export interface ReleaseValues {
  readonly chart: string;
  /** Files, later ones win. */
  readonly values: readonly string[];
  /** `key=value`, as Helm's --set. */
  readonly set: readonly string[];
}

const maxOutputBytes = 64 << 20;

/** Arguments that every call about a target has. */
export function targetArguments({ kubeconfig, namespace }: Target): string[] {
  return ['--namespace', namespace, ...(kubeconfig === undefined ? [] : ['--kubeconfig', kubeconfig])];
}

/** Arguments of `helm upgrade --install`, and of a rendering of the same. */
export function releaseArguments({ chart, values, set }: ReleaseValues): string[] {
  return [
    releaseName,
    chart,
    ...values.flatMap((file) => ['--values', file]),
    ...set.flatMap((assignment) => ['--set', assignment]),
  ];
}

/**
 * Runs Helm to its end; returns what it printed.
 *
 * @throws SealpodError PREREQUISITE where it is not installed, INTERNAL with its own words where it fails
 */
export function helm(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('helm', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk;
      if (output.length > maxOutputBytes) child.kill('SIGKILL');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      if (errors.length < 16_384) errors += chunk;
    });
    child.once('error', (cause: NodeJS.ErrnoException) => {
      reject(
        new SealpodError('PREREQUISITE', 'helm cannot be started', {
          cause,
          expected: 'Helm 3.14 or newer on the PATH',
          fix: 'install Helm; the development cluster brings one, see `sealpod cluster up`',
        }),
      );
    });
    child.once('close', (code) => {
      if (code === 0) return resolve(output);
      reject(
        new SealpodError('CLUSTER', `helm ${args[0]} failed`, {
          expected: 'exit status 0',
          actual: errors.trim().slice(-3000) || `exit status ${code}`,
          fix: 'see what Helm says; `sealpod doctor --cluster` says what of an installation does not work',
        }),
      );
    });
  });
}

/** Whether the release is installed. */
export async function isInstalled(target: Target): Promise<boolean> {
  const listed = await helm(['list', ...targetArguments(target), '--filter', `^${releaseName}$`, '--output', 'json']);
  return (JSON.parse(listed) as readonly unknown[]).length > 0;
}
