import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Lock, takeLock } from '@sealpod/processes';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { namespaceExists } from '../network/namespace.ts';
import type { Provider } from '../providers/provider.ts';
import type { SandboxVolumes } from '../volumes/sandbox-volumes.ts';
import { adaptorChannelKey } from './channel-key.ts';
import type { AdaptorConfig } from './config.ts';
import { Journal, type SandboxRecord, type SandboxSpec } from './journal.ts';
import type { Log } from './log.ts';
import { adaptorIdentity, findStrays, removeStray } from './ownership.ts';
import { Sandbox, sha256 } from './sandbox.ts';
import type { SandboxDependencies } from './sandbox-dependencies.ts';
import { type StartListener, StartRecords } from './status/start-records.ts';
import type { VmRequest } from './vm-request.ts';

const firstRetryMs = 1000;
const longestRetryMs = 60_000;

/** All sandboxes of this machine's adaptor, over its restarts. */
export class Adaptor {
  readonly #config: AdaptorConfig;
  readonly #dependencies: SandboxDependencies;
  readonly #lock: Lock;
  readonly #sandboxes = new Map<string, Sandbox>();
  readonly #retries = new Map<string, NodeJS.Timeout>();
  /** What was reported as nobody's: once is enough. */
  readonly #reported = new Set<string>();
  #reconciling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(config: AdaptorConfig, dependencies: SandboxDependencies, lock: Lock) {
    this.#config = config;
    this.#dependencies = dependencies;
    this.#lock = lock;
  }

  /**
   * Takes up where the last process left off: serves the VMs that still run, undoes what was begun or ended halfway.
   * Throws STORAGE, also where another adaptor uses the same state.
   */
  static async open(config: AdaptorConfig, provider: Provider, log: Log, listener: StartListener): Promise<Adaptor> {
    await mkdir(config.stateDirectory, { recursive: true, mode: 0o700 });
    await mkdir(config.podsDirectory, { recursive: true, mode: 0o700 });
    const lock = await takeLock(join(config.stateDirectory, 'lock'), 'adaptor');
    try {
      const journal = await Journal.open(config.stateDirectory);
      const identity = await adaptorIdentity(config.stateDirectory);
      const channelKey = await adaptorChannelKey(config.stateDirectory);
      const starts = await StartRecords.open(config.stateDirectory, { log, listener });
      starts.endOthers(new Set(journal.records.keys()));
      const { startTimeoutMs } = config;
      const dependencies = { journal, provider, log, startTimeoutMs, adaptor: identity, channelKey, starts };
      const adaptor = new Adaptor(config, dependencies, lock);
      await provider.kept?.recover();
      await Promise.all([...journal.records.values()].map((record) => adaptor.#recover(record)));
      await adaptor.reconcile();
      adaptor.#timer = setInterval(() => void adaptor.reconcile(), config.reconcile.intervalMs);
      starts.follow();
      return adaptor;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /**
   * CreateVM: reserves the sandbox and returns the path at which its agent will be served. Nothing is started.
   * The same request again gets the same answer. Throws REQUEST_FORMAT for another one with the same id, RATE_LIMIT, STORAGE.
   */
  async create(request: VmRequest): Promise<string> {
    const { id, name, vcpus, memoryMiB, image, netnsPath, initdata } = request;
    const directory = join(this.#config.podsDirectory, id);
    const initdataSha256 = initdata && sha256(initdata);
    const spec: SandboxSpec = { id, name, directory, vcpus, memoryMiB, image, netnsPath, initdataSha256 };
    const known = this.#sandboxes.get(id);
    if (known) {
      if (JSON.stringify(known.spec) === JSON.stringify(spec)) return known.agentSocketPath;
      throw new SealpodError('REQUEST_FORMAT', `the sandbox ${id} exists already and is another one`);
    }
    if (this.#sandboxes.size >= this.#config.limits.sandboxes) {
      throw new SealpodError('RATE_LIMIT', `there are ${this.#sandboxes.size} sandboxes, and no more are allowed`);
    }
    const sandbox = new Sandbox(spec, this.#dependencies);
    if (Buffer.byteLength(sandbox.agentSocketPath) > 107) {
      throw new SealpodError('REQUEST_FORMAT', 'the path of the agent socket is too long for a unix socket', {
        expected: 'at most 107 bytes',
        actual: sandbox.agentSocketPath,
        fix: 'configure a shorter podsDirectory',
      });
    }
    this.#sandboxes.set(id, sandbox);
    try {
      await sandbox.create(initdata);
    } catch (error) {
      this.#sandboxes.delete(id);
      throw error;
    }
    this.starts.begin(id, request);
    this.#dependencies.log.info(
      { sandbox: id, name, vcpus, memoryMiB, initdata: initdataSha256 ?? null },
      'sandbox created',
    );
    return sandbox.agentSocketPath;
  }

  /** How the sandboxes started, for the status. */
  get starts(): StartRecords {
    return this.#dependencies.starts;
  }

  /** StartVM. Throws NOT_FOUND, else what the start failed with; then nothing of the sandbox is left. */
  async start(id: string, signal: AbortSignal): Promise<void> {
    const sandbox = this.#sandboxes.get(id);
    if (!sandbox) throw new SealpodError('NOT_FOUND', `there is no sandbox ${id}`);
    try {
      await sandbox.start(signal);
    } catch (error) {
      if (!this.#dependencies.journal.records.has(id)) this.#sandboxes.delete(id);
      else this.#retryLater(id, firstRetryMs);
      throw error;
    }
  }

  /** StopVM: goes on to its end whoever waits. A sandbox that is not known is gone already. Throws HYPERVISOR; it is tried again later. */
  async stop(id: string): Promise<void> {
    const sandbox = this.#sandboxes.get(id);
    if (!sandbox) return;
    try {
      await sandbox.stop();
      this.#sandboxes.delete(id);
    } catch (error) {
      this.#retryLater(id, firstRetryMs);
      throw error;
    }
  }

  /** The volumes of a sandbox. Throws NOT_FOUND. */
  volumesOf(id: string): SandboxVolumes {
    const sandbox = this.#sandboxes.get(id);
    if (!sandbox) throw new SealpodError('NOT_FOUND', `there is no sandbox ${id}`);
    return sandbox.volumes;
  }

  /** StopVM for every sandbox there is. Throws the first failure, after all were tried. */
  async stopAll(): Promise<void> {
    const ended = await Promise.allSettled([...this.#sandboxes.keys()].map((id) => this.stop(id)));
    for (const result of ended) if (result.status === 'rejected') throw result.reason;
  }

  /** Certificates (PEM) of the authority of its machines' TPMs; undefined where the provider is none. */
  async tpmAuthority(): Promise<string | undefined> {
    return this.#dependencies.provider.tpmAuthority?.();
  }

  /** Removes what the provider keeps between machines; call it when none is left. */
  async removeKept(): Promise<void> {
    await this.#dependencies.provider.kept?.remove();
  }

  /**
   * Compares what the journal says with what exists: tells the users of machines that have ended, stops sandboxes that are
   * forsaken for sure, removes what is this adaptor's own and unknown to its journal. The rest it leaves alone and reports.
   * Never rejects: what fails is tried again at the next time.
   */
  reconcile(): Promise<void> {
    this.#reconciling ??= this.#reconcile()
      .catch((error: unknown) => {
        this.#dependencies.log.error({ reason: asSealpodError(error).message }, 'could not compare with what exists');
      })
      .finally(() => {
        this.#reconciling = undefined;
      });
    return this.#reconciling;
  }

  /** Lets go of everything; the VMs keep running for the next adaptor. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#reconciling;
    for (const timer of this.#retries.values()) clearTimeout(timer);
    await Promise.all([...this.#sandboxes.values()].map((sandbox) => sandbox.release()));
    await this.starts.close();
    await this.#dependencies.journal.close();
    await this.#lock.release();
  }

  async #recover(record: SandboxRecord): Promise<void> {
    const { spec, phase } = record;
    const { log } = this.#dependencies;
    const sandbox = new Sandbox(spec, this.#dependencies);
    this.#sandboxes.set(spec.id, sandbox);
    try {
      if (phase === 'running' && (await sandbox.adopt())) {
        log.info({ sandbox: spec.id }, 'adopted a running pod VM');
        return;
      }
      // Nothing was started for it; its shim may still ask.
      if (phase === 'created' && (spec.netnsPath === undefined || namespaceExists(spec.netnsPath))) return;
      log.warn({ sandbox: spec.id, phase }, 'cleaning up after an earlier process');
      await this.stop(spec.id);
    } catch (error) {
      log.error(
        { sandbox: spec.id, reason: asSealpodError(error).message },
        'could not take up a sandbox; trying again',
      );
      this.#retryLater(spec.id, firstRetryMs);
    }
  }

  async #reconcile(): Promise<void> {
    const { provider, log } = this.#dependencies;
    for (const [id, sandbox] of this.#sandboxes) {
      if (this.#closed) return;
      await sandbox.checkMachine();
      if (sandbox.forsakenMs() < this.#config.reconcile.orphanGraceMs) continue;
      log.warn({ sandbox: id, ended: sandbox.ended }, 'nobody uses this sandbox and nobody will; stopping it');
      await this.stop(id);
    }
    const known = (id: string): boolean => this.#sandboxes.has(id);
    const strays = await findStrays(this.#config.podsDirectory, this.#dependencies.adaptor, known);
    const specs = [...this.#sandboxes.values()].map(({ spec }) => spec);
    const networksInUse = new Set(specs.flatMap(({ netnsPath }) => netnsPath ?? []));
    for (const spec of strays.own) {
      if (known(spec.id) || this.#closed) continue;
      log.warn({ sandbox: spec.id, directory: spec.directory }, 'removing a sandbox that the journal does not know');
      await removeStray(spec, provider, networksInUse);
    }
    for (const directory of strays.foreign) this.#report(directory, { directory }, 'a directory that nobody here made');
    for (const { sandboxId, id, directory } of await provider.listInstances()) {
      if (known(sandboxId)) continue;
      this.#report(`${id} ${directory}`, { sandbox: sandboxId, instance: id, directory }, 'an instance of nobody here');
    }
  }

  /** What nobody here made may be somebody's: an operator has to decide. */
  #report(what: string, fields: Record<string, unknown>, message: string): void {
    if (this.#reported.has(what)) return;
    this.#reported.add(what);
    this.#dependencies.log.warn(fields, message);
  }

  #retryLater(id: string, delayMs: number): void {
    if (this.#closed || this.#retries.has(id)) return;
    const retry = async () => {
      this.#retries.delete(id);
      const sandbox = this.#sandboxes.get(id);
      if (!sandbox || this.#closed) return;
      try {
        await sandbox.stop();
        this.#sandboxes.delete(id);
      } catch (error) {
        this.#dependencies.log.error(
          { sandbox: id, reason: asSealpodError(error).message },
          'still could not clean up',
        );
        this.#retryLater(id, Math.min(delayMs * 2, longestRetryMs));
      }
    };
    this.#retries.set(
      id,
      setTimeout(() => void retry(), delayMs),
    );
  }
}
