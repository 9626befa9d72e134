import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { Daemon } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Layout } from './layout.ts';

/** What other commands need to find a running environment. Holds no secret. */
export interface EnvironmentState {
  readonly bridge: string;
  /** Address of the bridge: where the guests reach key broker and registry. */
  readonly address: string;
  readonly subnet: string;
  readonly kbsUrl?: string;
  readonly kbsCertificateFile?: string;
  readonly registry?: string;
  readonly containerdSocket?: string;
  readonly adaptorSocket?: string;
  /** Whether machines start from a template. */
  readonly template?: boolean;
  readonly daemons: readonly Daemon[];
}

/** Reads the state of the environment, or undefined where none was started. */
export function readState(layout: Layout): EnvironmentState | undefined {
  if (!existsSync(layout.stateFile)) return undefined;
  return JSON.parse(readFileSync(layout.stateFile, 'utf8')) as EnvironmentState;
}

/** Replaces the state in one step: a reader sees the old or the new one, never half of it. */
export function writeState(layout: Layout, state: EnvironmentState): void {
  const temporary = `${layout.stateFile}.new`;
  writeFileSync(temporary, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  chmodSync(temporary, 0o600);
  renameSync(temporary, layout.stateFile);
}

/** The state of a running environment. @throws SealpodError NOT_FOUND where there is none. */
export function requireState(layout: Layout): EnvironmentState {
  const state = readState(layout);
  if (state === undefined || state.daemons.length === 0) {
    throw new SealpodError('NOT_FOUND', 'no environment is running', {
      expected: `a state file ${layout.stateFile} with running daemons`,
      actual: state === undefined ? 'no such file' : 'no daemons',
      fix: 'start one with `npm start` or `sealpod up`, or name another with --home',
    });
  }
  return state;
}
