import { createHash } from 'node:crypto';
import { isAbsolute } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Journal } from '../adaptor/journal.ts';
import type { GuestAddress, InstanceReference, Provider, VolumeEffect } from '../providers/provider.ts';

/** What a shim asks for. */
export interface VolumeRequest {
  /** Name within the sandbox, of the shim's choice. */
  readonly volumeId: string;
  /** Path of a block device on this host. */
  readonly device: string;
  readonly readOnly: boolean;
}

/** Where the guest finds a volume. */
export interface AttachedVolume extends GuestAddress {
  readonly serial: string;
}

const maxVolumes = 64;
const maxNameBytes = 1024;
const maxDeviceBytes = 4096;

/** The volumes of one sandbox's machine. Each is in the journal before it is plugged in, and until it is taken out. */
export class SandboxVolumes {
  readonly #reference: InstanceReference;
  readonly #with: { readonly journal: Journal; readonly provider: Provider };
  #last: Promise<unknown> = Promise.resolve();

  constructor(reference: InstanceReference, dependencies: { readonly journal: Journal; readonly provider: Provider }) {
    this.#reference = reference;
    this.#with = dependencies;
  }

  /**
   * Plugs a volume into the running machine. The same request again gets the same answer.
   *
   * @throws SealpodError REQUEST_FORMAT, RATE_LIMIT, NOT_FOUND where no machine runs, UNSUPPORTED by the provider; what the
   *   provider says. Nothing is left then.
   */
  attach(request: VolumeRequest): Promise<AttachedVolume> {
    return this.#inTurn(async () => {
      const { journal } = this.#with;
      const { sandboxId } = this.#reference;
      const plugs = this.#plugs();
      checkRequest(request);
      const effect = this.#effectFor(request);
      const answer = { ...plugs.addressOf(effect), serial: effect.serial };
      if (this.#records().some((record) => record.completed && record.effect.serial === effect.serial)) return answer;
      if (journal.records.get(sandboxId)?.phase !== 'running')
        throw new SealpodError('NOT_FOUND', `the machine of sandbox ${sandboxId} does not run`);
      await journal.append({ type: 'intend', sandboxId, effect });
      try {
        await plugs.attach(this.#reference, effect);
      } catch (error) {
        await this.#remove(effect);
        throw error;
      }
      await journal.append({ type: 'complete', sandboxId, effect });
      return answer;
    });
  }

  /** Takes a volume out of the machine. Does nothing for one that is not there. @throws SealpodError HYPERVISOR */
  detach(volumeId: string): Promise<void> {
    return this.#inTurn(async () => {
      for (const { effect } of this.#records())
        if (effect.serial === this.#serialOf(volumeId)) await this.#remove(effect);
    });
  }

  async #remove(effect: VolumeEffect): Promise<void> {
    await this.#plugs().detach(this.#reference, effect);
    await this.#with.journal.append({ type: 'undone', sandboxId: this.#reference.sandboxId, effect });
  }

  #plugs(): NonNullable<Provider['volumes']> {
    const { provider } = this.#with;
    if (provider.volumes !== undefined) return provider.volumes;
    throw new SealpodError('UNSUPPORTED', `provider ${provider.name} cannot attach volumes`, {
      fix: 'run the pod without persistent volumes, or with the qemu provider',
    });
  }

  #records(): readonly { readonly effect: VolumeEffect; readonly completed: boolean }[] {
    const effects = this.#with.journal.records.get(this.#reference.sandboxId)?.effects ?? [];
    return effects.flatMap(({ effect, completed }) => (effect.kind === 'volume' ? [{ effect, completed }] : []));
  }

  #effectFor({ volumeId, device, readOnly }: VolumeRequest): VolumeEffect {
    const serial = this.#serialOf(volumeId);
    const records = this.#records().map(({ effect }) => effect);
    const known = records.find((effect) => effect.serial === serial);
    if (known !== undefined) {
      if (known.device === device && known.readOnly === readOnly) return known;
      throw new SealpodError('REQUEST_FORMAT', `volume ${volumeId} is attached already and is another one`, {
        expected: `${known.device}${known.readOnly ? ', read-only' : ''}`,
        actual: `${device}${readOnly ? ', read-only' : ''}`,
      });
    }
    const taken = new Set(records.map(({ slot }) => slot));
    const slot = Array.from({ length: maxVolumes }, (_, index) => index).find((index) => !taken.has(index));
    if (slot === undefined)
      throw new SealpodError('RATE_LIMIT', `the sandbox has ${maxVolumes} volumes, and no more are possible`);
    return { kind: 'volume', slot, serial, device, readOnly };
  }

  /** Stable, and of the twenty characters that every kind of disk has room for. */
  #serialOf(volumeId: string): string {
    return createHash('sha256').update(`${this.#reference.sandboxId}\0${volumeId}`).digest('hex').slice(0, 20);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

function checkRequest({ volumeId, device }: VolumeRequest): void {
  if (volumeId === '' || Buffer.byteLength(volumeId) > maxNameBytes)
    throw new SealpodError('REQUEST_FORMAT', `a volume has a name of 1 to ${maxNameBytes} bytes`);
  if (!isAbsolute(device) || device.includes('\0') || Buffer.byteLength(device) > maxDeviceBytes)
    throw new SealpodError('REQUEST_FORMAT', 'a volume is named by the absolute path of a block device', {
      actual: JSON.stringify(device.slice(0, 200)),
    });
}
