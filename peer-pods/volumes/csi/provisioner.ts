import type {
  CoreV1Api,
  StorageV1Api,
  V1PersistentVolume,
  V1PersistentVolumeClaim,
  V1StorageClass,
} from '@kubernetes/client-node';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { Log } from '../../adaptor/log.ts';
import type { Backing } from './backing.ts';
import type { DriverConfig } from './config.ts';
import { parseBytes } from './quantity.ts';
import { keyAttribute } from './services.ts';

/** The scheduler's choice of a node, where the StorageClass waits for the first consumer. */
const selectedNode = 'volume.kubernetes.io/selected-node';
const provisionedBy = 'pv.kubernetes.io/provisioned-by';
const hostnameLabel = 'kubernetes.io/hostname';
const accessModes = new Set(['ReadWriteOnce', 'ReadWriteOncePod']);
const conflict = 409;
const notFound = 404;

/** What the provisioner reads and writes of the cluster. */
export interface ClusterApi {
  readonly core: Pick<
    CoreV1Api,
    | 'listPersistentVolumeClaimForAllNamespaces'
    | 'listPersistentVolume'
    | 'createPersistentVolume'
    | 'deletePersistentVolume'
    | 'createNamespacedEvent'
  >;
  readonly storage: Pick<StorageV1Api, 'listStorageClass'>;
}

/**
 * Makes a volume for each claim of the driver's StorageClasses on this node, and removes those that are released and to be
 * deleted. Each pass compares all there is, so what was missed while the driver was away is done after it.
 */
export class Provisioner {
  readonly #config: DriverConfig;
  readonly #api: ClusterApi;
  readonly #backing: Backing;
  readonly #log: Log;
  /** Failures that were told already, by object. */
  readonly #told = new Map<string, string>();

  constructor(config: DriverConfig, api: ClusterApi, backing: Backing, log: Log) {
    this.#config = config;
    this.#api = api;
    this.#backing = backing;
    this.#log = log;
  }

  /** One pass. @throws where the API server does not answer */
  async reconcile(): Promise<void> {
    const { core, storage } = this.#api;
    const { items: classes } = await storage.listStorageClass();
    const own = new Map(
      classes
        .filter(({ provisioner }) => provisioner === this.#config.driver)
        .map((item) => [item.metadata?.name ?? '', item]),
    );
    const { items: claims } = await core.listPersistentVolumeClaimForAllNamespaces();
    for (const claim of claims) {
      const storageClass = own.get(claim.spec?.storageClassName ?? '');
      if (storageClass === undefined || !this.#isOurs(claim, storageClass)) continue;
      await this.#attempt(claim.metadata?.uid ?? '', () => this.#provision(claim, storageClass), claim);
    }
    const { items: volumes } = await core.listPersistentVolume();
    for (const volume of volumes) {
      const { csi, persistentVolumeReclaimPolicy: policy } = volume.spec ?? {};
      if (csi?.driver !== this.#config.driver || policy !== 'Delete' || volume.status?.phase !== 'Released') continue;
      await this.#attempt(volume.metadata?.uid ?? '', () => this.#remove(volume, csi.volumeHandle));
    }
  }

  #isOurs({ metadata, spec, status }: V1PersistentVolumeClaim, { volumeBindingMode }: V1StorageClass): boolean {
    if (spec?.volumeName !== undefined || status?.phase !== 'Pending' || metadata?.deletionTimestamp !== undefined)
      return false;
    return volumeBindingMode !== 'WaitForFirstConsumer' || metadata?.annotations?.[selectedNode] === this.#config.node;
  }

  async #provision(claim: V1PersistentVolumeClaim, storageClass: V1StorageClass): Promise<void> {
    const { metadata, spec } = claim;
    const modes = spec?.accessModes ?? [];
    const unsupported = modes.find((mode) => !accessModes.has(mode));
    if (unsupported !== undefined || spec?.selector !== undefined || spec?.dataSource !== undefined) {
      throw new SealpodError('UNSUPPORTED', 'such a volume cannot be made', {
        expected: `access modes ${[...accessModes].join(' or ')}, no selector, no data source`,
        actual: unsupported ?? 'a selector or a data source',
      });
    }
    const wanted = String(spec?.resources?.requests?.['storage'] ?? '');
    const bytes = parseBytes(wanted);
    const name = `pvc-${metadata?.uid}`;
    await this.#backing.create(name, bytes);
    const key = metadata?.annotations?.[keyAttribute] ?? storageClass.parameters?.[keyAttribute];
    const volumeMode = spec?.volumeMode ?? 'Filesystem';
    const volume: V1PersistentVolume = {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name, annotations: { [provisionedBy]: this.#config.driver } },
      spec: {
        capacity: { storage: wanted },
        accessModes: modes,
        volumeMode,
        persistentVolumeReclaimPolicy: storageClass.reclaimPolicy ?? 'Delete',
        storageClassName: storageClass.metadata?.name ?? '',
        ...(storageClass.mountOptions === undefined ? {} : { mountOptions: storageClass.mountOptions }),
        claimRef: {
          apiVersion: 'v1',
          kind: 'PersistentVolumeClaim',
          namespace: metadata?.namespace ?? '',
          name: metadata?.name ?? '',
          uid: metadata?.uid ?? '',
        },
        csi: {
          driver: this.#config.driver,
          volumeHandle: name,
          ...(volumeMode === 'Filesystem' ? { fsType: 'ext4' } : {}),
          ...(key === undefined ? {} : { volumeAttributes: { [keyAttribute]: key } }),
        },
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [
              { matchExpressions: [{ key: hostnameLabel, operator: 'In', values: [this.#config.node] }] },
            ],
          },
        },
      },
    };
    await this.#api.core.createPersistentVolume({ body: volume }).catch(unless(conflict));
    this.#log.info({ volume: name, bytes, claim: `${metadata?.namespace}/${metadata?.name}` }, 'volume made');
  }

  async #remove(volume: V1PersistentVolume, id: string): Promise<void> {
    await this.#backing.remove(id);
    await this.#api.core.deletePersistentVolume({ name: volume.metadata?.name ?? '' }).catch(unless(notFound));
    this.#log.info({ volume: id }, 'volume removed');
  }

  /** A failure is told once, in the log and where it is about a claim as its event; the next pass tries again. */
  async #attempt(uid: string, work: () => Promise<void>, claim?: V1PersistentVolumeClaim): Promise<void> {
    try {
      await work();
      this.#told.delete(uid);
    } catch (thrown) {
      const error = asSealpodError(thrown);
      const { expected, actual } = error.detail;
      const message = [
        `${error.code}: ${error.message}`,
        ...(expected === undefined ? [] : [`expected ${expected}`]),
      ].join('; ');
      if (this.#told.get(uid) === message) return;
      this.#told.set(uid, message);
      this.#log.error({ object: uid, code: error.code, expected, actual }, error.message);
      if (claim !== undefined) await this.#tell(claim, message);
    }
  }

  async #tell({ metadata }: V1PersistentVolumeClaim, message: string): Promise<void> {
    const { namespace = 'default', name = '', uid = '' } = metadata ?? {};
    const now = new Date();
    await this.#api.core.createNamespacedEvent({
      namespace,
      body: {
        metadata: { generateName: `${name}.`, namespace },
        involvedObject: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace, name, uid },
        type: 'Warning',
        reason: 'ProvisioningFailed',
        message,
        source: { component: this.#config.driver },
        firstTimestamp: now,
        lastTimestamp: now,
        count: 1,
      },
    });
  }
}

/** Passes over one status of the API server. */
function unless(status: number): (error: unknown) => void {
  return (error) => {
    if ((error as { code?: unknown }).code !== status) throw error;
  };
}
