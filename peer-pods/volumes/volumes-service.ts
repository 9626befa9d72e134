import { Volumes } from '@sealpod/protocol/gen/sealpod/volumes_pb';
import type { TtrpcServer } from '@sealpod/protocol/ttrpc';
import type { Adaptor } from '../adaptor/adaptor.ts';

/** Adds the service for volumes to the adaptor's server. Whoever reaches its socket may open devices of the host. */
export function addVolumesService(server: TtrpcServer, adaptor: Adaptor): TtrpcServer {
  return server.addService(Volumes, {
    attachVolume: ({ sandboxId, volumeId, device, readOnly }) =>
      adaptor.volumesOf(sandboxId).attach({ volumeId, device, readOnly }),
    detachVolume: async ({ sandboxId, volumeId }) => {
      await adaptor.volumesOf(sandboxId).detach(volumeId);
      return {};
    },
  });
}
