import { asSealpodError } from '@sealpod/protocol/errors';
import { Hypervisor } from '@sealpod/protocol/gen/kata/hypervisor_pb';
import { Status, TtrpcServer } from '@sealpod/protocol/ttrpc';
import type { Adaptor } from './adaptor.ts';
import type { AdaptorConfig } from './config.ts';
import { parseVmRequest, podOf } from './vm-request.ts';

/** The answer of the reference implementation, which shims take as compatible. */
const version = '0.0.0';

const maxIdCharacters = 128;

/** The service that a Kata shim calls on the adaptor's socket. */
export function hypervisorServer(adaptor: Adaptor, config: AdaptorConfig): TtrpcServer {
  return new TtrpcServer({ missingMethodStatus: Status.unimplemented }).addService(Hypervisor, {
    createVM: async (request) => {
      try {
        return { agentSocketPath: await adaptor.create(parseVmRequest(request, config)) };
      } catch (thrown) {
        const start = { pod: podOf(request.annotations), name: '', vcpus: 0, memoryMiB: 0 };
        adaptor.starts.refuse(request.id.slice(0, maxIdCharacters), start, asSealpodError(thrown, 'INTERNAL'));
        throw thrown;
      }
    },
    startVM: async ({ id }, { signal }) => {
      await adaptor.start(id, signal);
      return {};
    },
    // Not tied to the request: a shim gives one second and does not look at the answer, and the VM has to go all the same.
    stopVM: async ({ id }) => {
      await adaptor.stop(id);
      return {};
    },
    version: () => ({ version }),
  });
}
