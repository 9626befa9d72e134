/**
 * What a place that runs pod VMs (a hypervisor, a cloud) has to do for the adaptor.
 *
 * @module
 */
import type { ProcessIdentity } from '@sealpod/processes';

/** Something outside that has to be undone one day. */
export type Effect =
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'socket'; readonly path: string }
  | { readonly kind: 'tap'; readonly netnsPath: string; readonly name: string }
  /**
   * `marker` stands in an argument of this process and of no other of the same program, e.g. the path of a file in the
   * sandbox's directory; `executable` is the base name of the program (of /proc/<pid>/exe).
   */
  | { readonly kind: 'process'; readonly role: string; readonly executable: string; readonly marker: string }
  | VolumeEffect;

/** A block device of the host in a machine. */
export interface VolumeEffect {
  readonly kind: 'volume';
  /** Place in the machine, from 0. */
  readonly slot: number;
  /** Serial number of the disk that the guest sees. */
  readonly serial: string;
  /** Path of the device on the host. */
  readonly device: string;
  readonly readOnly: boolean;
}

/** Where a guest finds a disk, in the words of the agent protocol. */
export interface GuestAddress {
  /** Storage driver, e.g. `scsi`. */
  readonly driver: string;
  /** Source in the form of that driver, e.g. `0:1`. */
  readonly source: string;
}

/** Block devices in running machines. Failures are SealpodErrors. */
export interface VolumePlugs {
  /** The address that a volume has, attached or not. */
  addressOf(volume: VolumeEffect): GuestAddress;
  /** Plugs a volume into its slot. What an interrupted attempt left there is taken out first; on failure nothing is left. */
  attach(reference: InstanceReference, volume: VolumeEffect): Promise<void>;
  /** Takes a volume out. Does nothing where it, or the machine, is not there. */
  detach(reference: InstanceReference, volume: VolumeEffect): Promise<void>;
}

/** The adaptor's journal as a provider sees it, for one sandbox. */
export interface EffectJournal {
  /** Durable before it resolves. Call it before the effect happens. */
  intend(effect: Effect): Promise<void>;
  /** The effect has happened; for a process, which one it is. */
  complete(effect: Effect, identity?: ProcessIdentity): Promise<void>;
}

/** Where the VM's network card plugs in: the tap exists already and is tied to the pod's interface. */
export interface InstanceNetwork {
  /** The pod's network namespace, which the hypervisor has to enter to open the tap. */
  readonly netnsPath: string;
  readonly tapName: string;
  /** The card's address: that of the pod's interface. */
  readonly macAddress: string;
  readonly mtu: number;
}

/** Names one instance, before and after it exists. */
export interface InstanceReference {
  readonly sandboxId: string;
  /** `podvm-<pod>-<first eight of the sandbox id>`: lower-case letters, digits, dashes; at most 63. */
  readonly name: string;
  /** A directory of this sandbox alone, mode 0700, made by the adaptor, which removes it with all its files in the end. */
  readonly directory: string;
}

export interface InstanceRequest extends InstanceReference {
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** Name of the pod VM image that the pod asks for; absent: the provider's default. Not checked yet. */
  readonly image?: string | undefined;
  /** The initdata document (TOML) exactly as it is to be measured; absent where the pod has none. */
  readonly initdata?: Uint8Array | undefined;
  readonly network?: InstanceNetwork | undefined;
  readonly effects: EffectJournal;
  /** Aborted when nobody waits any more; whatever was begun is deleted afterwards. */
  readonly signal: AbortSignal;
}

export interface Instance extends InstanceReference {
  /** The provider's own name of it: for a local hypervisor its process id, as text. */
  readonly id: string;
  /** Unix socket that carries the bytes of the guest's agent channel. It may be served a little after the instance exists. */
  readonly agentSocketPath: string;
  /** Certificate of the endorsement key of the machine's TPM, DER, where the provider knows it from its making. */
  readonly endorsementCertificate?: Uint8Array | undefined;
  /** File to which the guest's console is written; its end is quoted when a guest does not come up. */
  readonly consoleLogPath?: string | undefined;
  /** The image that it was booted from: SHA-256 of the whole (`sha256:…`), and the root hash in its measured command line. */
  readonly image?: { readonly name: string; readonly digest: string; readonly rootHash: string } | undefined;
}

/** All its failures are SealpodErrors: HYPERVISOR, PROVIDER_IMAGE, PREREQUISITE. */
export interface Provider {
  readonly name: string;
  /**
   * `tls`: guests have a key for the agent channel and prove that it lives in their machine; instances have an
   * `endorsementCertificate` then. `plain`, the default: guests, such as upstream's, speak ttrpc without protection.
   */
  readonly agentTransport?: 'tls' | 'plain' | undefined;
  /** User id as whom the hypervisor opens the tap; absent: the adaptor's own. */
  readonly tapOwner?: number | undefined;
  /** Starts the VM and returns as soon as it runs; does not wait for the guest. On failure it leaves nothing running. */
  createInstance(request: InstanceRequest): Promise<Instance>;
  /** The instance if it still runs, so that a restarted adaptor can adopt it; undefined if it does not. */
  findInstance(reference: InstanceReference): Promise<Instance | undefined>;
  /** Ends the instance and everything that belongs to it, even one that was created only in part. Does nothing where there is none. */
  deleteInstance(reference: InstanceReference): Promise<void>;
  /** Absent: the provider has no volumes. */
  readonly volumes?: VolumePlugs;
  /**
   * Certificates (PEM) of the authority that endorses the TPMs of its machines, where the provider itself is that authority: what
   * whoever trusts these machines enrols.
   */
  readonly tpmAuthority?: () => Promise<string>;
  /** Every instance of this adaptor's configuration that runs, known or not. */
  listInstances(): Promise<readonly Instance[]>;
  /** Absent: the provider keeps nothing between instances. */
  readonly kept?: KeptBetweenInstances;
}

/** What a provider makes for instances to come. */
export interface KeptBetweenInstances {
  /** Ends and removes what an earlier process began and did not finish. Called before the first instance of this one. */
  recover(): Promise<void>;
  /** Removes all of it. Called when no instance is left and none will be made. */
  remove(): Promise<void>;
}

/** What the adaptor gives a provider when it makes it. */
export interface ProviderContext {
  /** Parent of all sandbox directories. */
  readonly podsDirectory: string;
  /** Where the adaptor keeps what outlives it; a provider keeps its own below, in folders of its name. */
  readonly stateDirectory: string;
  /** Writes one structured line to the adaptor's log. */
  readonly log: (level: 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>) => void;
}

/**
 * Makes a provider from the member `provider` of the adaptor's configuration file without its `name`, which it
 * validates. Throws SealpodError USAGE or PREREQUISITE.
 */
export type ProviderFactory = (options: unknown, context: ProviderContext) => Promise<Provider>;
