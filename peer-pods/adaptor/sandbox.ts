import { createHash } from 'node:crypto';
import { lstat, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { inspectPodNetwork, type PodNetwork } from '../network/inspect.ts';
import { connectLocalhost } from '../network/localhost.ts';
import { checkNamespace, namespaceExists } from '../network/namespace.ts';
import { setUpTap, tapName } from '../network/tap.ts';
import type { Effect, EffectJournal, Instance, InstanceNetwork, InstanceReference } from '../providers/provider.ts';
import { SandboxVolumes } from '../volumes/sandbox-volumes.ts';
import { type AgentConnection, openAgentConnection } from './agent-connection.ts';
import { undoSandbox } from './cleanup.ts';
import { configureGuestNetwork, waitForAgent } from './guest.ts';
import type { Phase, SandboxSpec } from './journal.ts';
import { MachineWatch } from './machine-watch.ts';
import { markOwned } from './ownership.ts';
import type { SandboxDependencies } from './sandbox-dependencies.ts';
import type { StartTeller } from './status/start-records.ts';

const initdataFile = 'initdata.toml';

/** One pod's VM from CreateVM to StopVM. Each step is in the journal before it happens. */
export class Sandbox {
  readonly spec: SandboxSpec;
  readonly volumes: SandboxVolumes;
  readonly #dependencies: SandboxDependencies;
  readonly #stopRequested = new AbortController();
  readonly #watch: MachineWatch;
  #connection: AgentConnection | undefined;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  #forsakenSince: number | undefined;

  constructor(spec: SandboxSpec, dependencies: SandboxDependencies) {
    this.spec = spec;
    this.#dependencies = dependencies;
    this.#watch = new MachineWatch(this.#reference, dependencies);
    this.volumes = new SandboxVolumes(this.#reference, dependencies);
  }

  /** Where the shim finds the guest agent. */
  get agentSocketPath(): string {
    return join(this.spec.directory, 'agent.ttrpc');
  }

  /** Makes the directory of a new sandbox and keeps the initdata there. Throws STORAGE; then nothing is left. */
  async create(initdata: Uint8Array | undefined): Promise<void> {
    const { directory } = this.spec;
    const { journal } = this.#dependencies;
    if (await lstat(directory).catch(ignoreAbsence)) {
      throw new SealpodError('STORAGE', `${directory} exists already and belongs to nobody`, { fix: 'remove it' });
    }
    await journal.append({ type: 'sandbox', spec: this.spec });
    try {
      const effect: Effect = { kind: 'directory', path: directory };
      await this.#effects.intend(effect);
      await mkdir(directory, { mode: 0o700 });
      await this.#effects.complete(effect);
      await markOwned(this.spec, this.#dependencies.adaptor);
      if (initdata) await writeFile(join(directory, initdataFile), initdata, { mode: 0o600, flag: 'wx' });
    } catch (cause) {
      await this.#undo();
      throw new SealpodError('STORAGE', `the directory ${directory} cannot be set up`, { cause });
    }
  }

  /**
   * Starts the VM and serves its agent; resolves when the shim may connect. A second call joins the first.
   * Throws SealpodError, with everything undone.
   */
  start(signal: AbortSignal): Promise<void> {
    this.#starting ??= this.#start(signal);
    return this.#starting;
  }

  /** Ends the VM and undoes everything, also in the midst of a start. May be called again after a failure. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop().catch((error: unknown) => {
      this.#stopping = undefined;
      throw error;
    });
    return this.#stopping;
  }

  /** After a restart: serves the agent of a VM that still runs. Returns whether it does. */
  async adopt(): Promise<boolean> {
    const instance = await this.#dependencies.provider.findInstance(this.#reference);
    if (!instance) return false;
    this.#told.runsAs(instance);
    await this.#connect(instance, true).proxy.listen(this.agentSocketPath);
    this.#starting = Promise.resolve();
    return true;
  }

  /** Lets go of the VM without ending it. */
  async release(): Promise<void> {
    await this.#connection?.proxy.close();
  }

  /** Looks whether the machine of a running pod is still there. Throws what the provider throws. */
  checkMachine(): Promise<void> {
    return this.#watch.look(this.#connection?.proxy);
  }

  /** Why the machine has ended; absent while it has not. */
  get ended(): string | undefined {
    return this.#watch.ended;
  }

  /**
   * For how long it has been sure that nobody will ask for this sandbox again, in milliseconds; 0 while it may be asked
   * for. Sure is: its network namespace is gone, or its machine has ended, and no shim is connected to its agent.
   */
  forsakenMs(): number {
    const { netnsPath, id } = this.spec;
    const phase = this.#dependencies.journal.records.get(id)?.phase;
    const busy = (phase !== 'created' && phase !== 'running') || (this.#connection?.proxy.unusedMs ?? 1) === 0;
    const lost = this.ended !== undefined || (netnsPath !== undefined && !namespaceExists(netnsPath));
    if (busy || !lost) {
      this.#forsakenSince = undefined;
      return 0;
    }
    this.#forsakenSince ??= performance.now();
    return Math.min(
      performance.now() - this.#forsakenSince,
      this.#connection?.proxy.unusedMs ?? Number.POSITIVE_INFINITY,
    );
  }

  #connect(instance: Instance, resumed: boolean): AgentConnection {
    const connection = openAgentConnection(this.spec.id, instance, resumed, this.#dependencies, () => {
      void this.#watch.channelLost(connection.proxy);
    });
    this.#connection = connection;
    return connection;
  }

  get #told(): StartTeller {
    return this.#dependencies.starts.of(this.spec.id);
  }

  get #reference(): InstanceReference {
    const { id: sandboxId, name, directory } = this.spec;
    return { sandboxId, name, directory };
  }

  async #start(callerSignal: AbortSignal): Promise<void> {
    const { startTimeoutMs, log } = this.#dependencies;
    const begun = performance.now();
    const timeout = AbortSignal.timeout(startTimeoutMs);
    const signal = AbortSignal.any([callerSignal, timeout, this.#stopRequested.signal]);
    const told = this.#told;
    let localhost: Promise<PodNetwork> | undefined;
    try {
      await this.#setPhase('starting');
      told.state('starting');
      const podNetwork = await this.#readNetwork();
      const network = podNetwork && (await told.during('network', 'host', () => this.#plug(podNetwork)));
      signal.throwIfAborted();
      if (podNetwork && network) {
        // Nothing of the machine is needed for it: it is ready before the machine is. A failure is heard below.
        localhost = connectLocalhost(network.netnsPath, network.tapName, podNetwork);
        localhost.catch(() => undefined);
      }
      const instance = await told.during('creating-vm', undefined, () => this.#createInstance(network, signal));
      told.runsAs(instance);
      const { proxy, prove } = this.#connect(instance, false);
      const { guest } = proxy;
      const { provider } = this.#dependencies;
      await told.during('booting', undefined, () => waitForAgent(guest, instance, provider, signal));
      const proved = prove(signal);
      // Heard below; a network that fails first must not leave it unheard.
      proved.catch(() => undefined);
      const connected = await localhost;
      if (connected) {
        await told.during('network', 'guest', () => configureGuestNetwork(guest, connected, signal));
      }
      await proved;
      const socket: Effect = { kind: 'socket', path: this.agentSocketPath };
      await this.#effects.intend(socket);
      await proxy.listen(this.agentSocketPath);
      await this.#effects.complete(socket);
      const { endorsementCertificate: _, ...lasting } = instance;
      await this.#setPhase('running', lasting);
      told.state('running');
      log.info(
        { sandbox: this.spec.id, instance: instance.id, ms: Math.round(performance.now() - begun) },
        'pod VM runs',
      );
    } catch (thrown) {
      const error = asSealpodError(thrown, 'HYPERVISOR');
      const { expected, actual } = error.detail;
      log.error(
        { sandbox: this.spec.id, code: error.code, reason: error.message, expected, actual },
        'pod VM did not start',
      );
      // What it does in the pod's namespace must not come after the undoing.
      await localhost?.catch(() => undefined);
      // A stop that is under way undoes it; where undoing fails, the next stop tries again.
      if (!this.#stopRequested.signal.aborted) {
        await told.failed(error);
        await this.#undo().catch((failure: unknown) => {
          log.error({ sandbox: this.spec.id, reason: String(failure) }, 'what was begun could not be undone yet');
        });
      }
      throw error;
    }
  }

  async #stop(): Promise<void> {
    this.#stopRequested.abort(new SealpodError('HYPERVISOR', 'the sandbox is being stopped'));
    // Its failure was told to its own caller.
    await this.#starting?.catch(() => undefined);
    await this.#undo();
    this.#dependencies.log.info({ sandbox: this.spec.id }, 'pod VM is gone');
  }

  async #undo(): Promise<void> {
    const { journal, provider } = this.#dependencies;
    const { id: sandboxId } = this.spec;
    if (!journal.records.has(sandboxId)) return;
    await this.#setPhase('stopping');
    await this.#connection?.proxy.close();
    await this.#told.ending();
    const record = journal.records.get(sandboxId);
    if (record) await undoSandbox(record, provider);
    await journal.append({ type: 'forget', sandboxId });
    this.#told.state('ended');
  }

  async #readNetwork(): Promise<PodNetwork | undefined> {
    const { netnsPath } = this.spec;
    if (netnsPath === undefined) return undefined;
    checkNamespace(netnsPath);
    return inspectPodNetwork(netnsPath, [tapName]);
  }

  async #plug(network: PodNetwork): Promise<InstanceNetwork | undefined> {
    const { netnsPath } = this.spec;
    if (netnsPath === undefined) return undefined;
    const tap: Effect = { kind: 'tap', netnsPath, name: tapName };
    await this.#effects.intend(tap);
    await setUpTap(netnsPath, network.interfaceName, { mtu: network.mtu, owner: this.#dependencies.provider.tapOwner });
    await this.#effects.complete(tap);
    return { netnsPath, tapName, macAddress: network.macAddress, mtu: network.mtu };
  }

  async #createInstance(network: InstanceNetwork | undefined, signal: AbortSignal): Promise<Instance> {
    const { vcpus, memoryMiB, image } = this.spec;
    const initdata = await this.#readInitdata();
    const request = { ...this.#reference, vcpus, memoryMiB, image, initdata, network, effects: this.#effects, signal };
    return this.#dependencies.provider.createInstance(request);
  }

  async #readInitdata(): Promise<Uint8Array | undefined> {
    const { initdataSha256, directory } = this.spec;
    if (initdataSha256 === undefined) return undefined;
    const path = join(directory, initdataFile);
    const bytes = await readFile(path);
    if (sha256(bytes) === initdataSha256) return bytes;
    throw new SealpodError('INITDATA_DIGEST', `${path} is not the initdata of CreateVM`, {
      expected: initdataSha256,
      actual: sha256(bytes),
    });
  }

  get #effects(): EffectJournal {
    const { journal } = this.#dependencies;
    const sandboxId = this.spec.id;
    return {
      intend: (effect) => journal.append({ type: 'intend', sandboxId, effect }),
      complete: (effect, identity) => journal.append({ type: 'complete', sandboxId, effect, identity }),
    };
  }

  #setPhase(phase: Phase, instance?: Instance): Promise<void> {
    return this.#dependencies.journal.append({ type: 'phase', sandboxId: this.spec.id, phase, instance });
  }
}

/** Lower-case hexadecimal SHA-256. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function ignoreAbsence(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
