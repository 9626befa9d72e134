import { SealpodError } from '@sealpod/protocol/errors';
import { correlationIn } from '@sealpod/protocol/status';
import type { ShimConfiguration } from '../configuration.ts';
import type { GuestConnection } from '../guest/connection.ts';
import type { Logger } from '../log.ts';
import { copyRequests } from '../mounts/copy.ts';
import { type Copy, planMounts } from '../mounts/plan.ts';
import { guestPullStorage } from '../mounts/storage.ts';
import { VolumeUpdates } from '../mounts/volume-updates.ts';
import { adaptSpecification, sharesProcessNamespace } from '../oci/adapt.ts';
import type { Specification } from '../oci/specification.ts';
import { specificationToAgent } from '../oci/to-agent.ts';
import type { ContainerVolumes } from '../volumes/attach.ts';
import type { Container } from './container.ts';

/**
 * Creates a container in the guest: its volumes are copied, its image is pulled there. Returns what keeps the copied
 * volumes up to date; the caller closes it with the container.
 *
 * @param volumes its persistent volumes, which are plugged into the machine already
 * @throws SealpodError UNSUPPORTED, NOT_FOUND or REQUEST_TOO_LARGE for its mounts; TtrpcError with the guest's own words
 */
export async function createInGuest(
  guest: GuestConnection,
  configuration: ShimConfiguration,
  container: Pick<Container, 'id' | 'bundle' | 'kind' | 'specification'>,
  volumes: ContainerVolumes,
  log: Logger,
): Promise<VolumeUpdates> {
  const { id, bundle, kind, specification } = container;
  const plan = planMounts(id, specification.mounts ?? [], volumes.storages);
  // Before anything is copied: an image that is not named fails at once.
  const rootFilesystem = guestPullStorage(id, specification, kind);
  const options = { timeoutMs: configuration.agentTimeout * 1000 };
  const send = async (copy: Copy): Promise<void> => {
    for await (const request of copyRequests(copy, configuration)) {
      await guest.call((agent) => agent.copyFile(request, options));
    }
  };
  const updates = new VolumeUpdates(plan.copies, send, log);
  try {
    for (const copy of plan.copies) await send(copy);
    const adapted = adaptSpecification(specification, {
      containerId: id,
      bundle,
      kind,
      mounts: plan.mounts,
      disableSeccomp: configuration.disableGuestSeccomp,
    });
    await guest.call((agent) =>
      agent.createContainer(
        {
          containerId: id,
          execId: '',
          storages: [rootFilesystem, ...plan.storages],
          devices: [...volumes.devices],
          OCI: specificationToAgent(adapted),
          sandboxPidns: sharesProcessNamespace(specification),
        },
        { timeoutMs: createTimeout(specification, configuration) },
      ),
    );
  } catch (thrown) {
    updates.close();
    const correlation = correlationIn(String(thrown)) ?? '';
    log.info('a container was refused', { container: id, error: thrown, correlation });
    throw thrown;
  }
  updates.begin();
  return updates;
}

function createTimeout(specification: Specification, configuration: ShimConfiguration): number {
  const annotation = specification.annotations?.['io.katacontainers.config.runtime.create_container_timeout'];
  if (annotation === undefined) return configuration.createContainerTimeout * 1000;
  const seconds = Number(annotation);
  if (!Number.isInteger(seconds) || seconds <= 0 || seconds > 24 * 3600) {
    throw new SealpodError('REQUEST_FORMAT', 'annotation create_container_timeout is no number of seconds', {
      expected: '1 to 86400',
      actual: annotation,
    });
  }
  return seconds * 1000;
}
