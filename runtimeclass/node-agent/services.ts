import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import {
  commandLineOf,
  endProcess,
  findProcesses,
  identityOf,
  isRunning,
  type ProcessIdentity,
  type ProcessPattern,
} from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Host } from './host.ts';

/** A daemon on the host that has to outlive the agent. */
export interface Service {
  readonly name: string;
  readonly description: string;
  /** Program and arguments on the host. */
  readonly command: readonly string[];
  /** Socket on the host; the service serves once it accepts connections. */
  readonly socket: string;
  /** What makes it another service: release and configuration. A running one of another digest is replaced. */
  readonly digest: string;
  readonly logFile: string;
}

/** Who starts and stops services on this host. */
export interface ServiceManager {
  /** Makes exactly this service run. @returns whether it was started; @throws SealpodError where it cannot be */
  ensure(service: Service): Promise<boolean>;
  /** Ends it, where it runs, and forgets it. What it started for others keeps running. */
  remove(service: Service): Promise<void>;
}

const stopGraceMs = 10_000;
const readyTimeoutMs = 60_000;
const maxLogBytes = 16 << 20;

export const digestOf = (...parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex');

/** Whether the service's socket accepts connections. */
export function serves(host: Pick<Host, 'path'>, { socket }: Service): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(host.path(socket));
    const settle = (answer: boolean) => () => {
      connection.destroy();
      resolve(answer);
    };
    connection.setTimeout(2000, settle(false));
    connection.once('connect', settle(true)).once('error', settle(false));
  });
}

/** Waits until a service serves. @throws SealpodError PREREQUISITE with the end of its log */
export async function untilServing(
  host: Pick<Host, 'path'>,
  service: Service,
  runs: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + readyTimeoutMs;
  while (!(await serves(host, service))) {
    const ended = !(await runs());
    if (ended || Date.now() > deadline) {
      throw new SealpodError('PREREQUISITE', `the ${service.name} ${ended ? 'ended at once' : 'does not serve'}`, {
        expected: `connections to ${service.socket}`,
        actual: endOfLog(host, service),
        fix: `see ${service.logFile} on the node`,
      });
    }
    await delay(50);
  }
}

function endOfLog(host: Pick<Host, 'path'>, { logFile }: Service): string {
  const file = host.path(logFile);
  if (!existsSync(file)) return 'no log';
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-4).join('\n') || 'nothing in its log';
}

interface Started extends ProcessIdentity {
  readonly digest: string;
}

const patternOf = ({ command }: Service): ProcessPattern => ({
  executable: command[0]?.split('/').at(-1) ?? '',
  marker: command.at(-1) ?? '',
});

/** Processes with the whole command line of a service: also those that the file which names them was lost for. */
function runningAs(service: Service): ProcessIdentity[] {
  return findProcesses(patternOf(service)).filter(({ pid }) => isDeepStrictEqual(commandLineOf(pid), service.command));
}

/**
 * Services as processes that the agent starts itself, on hosts without systemd. A file of the host says which they are,
 * so that the next agent takes them over: by number and start time, never by number alone.
 */
export class AgentServices implements ServiceManager {
  readonly #host: Host;
  readonly #stateFile: string;

  /** @param stateFile on the host; it must not outlive the machine */
  constructor(host: Host, stateFile: string) {
    this.#host = host;
    this.#stateFile = stateFile;
  }

  async ensure(service: Service): Promise<boolean> {
    const started = this.#read()[service.name];
    for (const stranger of runningAs(service)) {
      if (stranger.pid !== started?.pid) await this.#end(service, stranger);
    }
    if (started !== undefined && isRunning(started)) {
      if (started.digest === service.digest) {
        await untilServing(this.#host, service, async () => isRunning(started));
        return false;
      }
      await this.#end(service, started);
    }
    this.#limitLog(service);
    const child = this.#host.start(service.command, service.logFile);
    const failed = new Promise<never>((_, reject) =>
      child.once('error', (cause) =>
        reject(new SealpodError('PREREQUISITE', `the ${service.name} could not be started`, { cause })),
      ),
    );
    const identity = child.pid === undefined ? undefined : identityOf(child.pid);
    if (identity !== undefined)
      this.#write({ ...this.#read(), [service.name]: { ...identity, digest: service.digest } });
    const runs = async (): Promise<boolean> => identity !== undefined && isRunning(identity);
    await Promise.race([untilServing(this.#host, service, runs), failed]);
    return true;
  }

  async remove(service: Service): Promise<void> {
    const { [service.name]: started, ...others } = this.#read();
    for (const identity of [...(started === undefined ? [] : [started]), ...runningAs(service)]) {
      await this.#end(service, identity);
    }
    if (Object.keys(others).length === 0) rmSync(this.#host.path(this.#stateFile), { force: true });
    else this.#write(others);
  }

  /** nsenter and the shell before it become the program, so the process that was started is the service itself. */
  async #end(service: Service, identity: ProcessIdentity): Promise<void> {
    await endProcess(identity, patternOf(service), stopGraceMs);
  }

  #limitLog({ logFile }: Service): void {
    const file = this.#host.path(logFile);
    if (existsSync(file) && statSync(file).size > maxLogBytes) renameSync(file, `${file}.old`);
  }

  #read(): Readonly<Record<string, Started>> {
    const file = this.#host.path(this.#stateFile);
    return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Record<string, Started>) : {};
  }

  #write(state: Readonly<Record<string, Started>>): void {
    const file = this.#host.path(this.#stateFile);
    mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
    writeFileSync(`${file}.new`, JSON.stringify(state), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }
}
