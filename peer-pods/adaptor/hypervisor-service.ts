import { Hypervisor } from '@sealpod/protocol/gen/kata/hypervisor_pb';
import { Status, TtrpcServer } from '@sealpod/protocol/ttrpc';
import type { Adaptor } from './adaptor.ts';
import type { AdaptorConfig } from './config.ts';
import { parseVmRequest } from './vm-request.ts';

/** The answer of the reference implementation, which shims take as compatible. */
const version = '0.0.0';

/** The service that a Kata shim calls on the adaptor's socket. */
export function hypervisorServer(adaptor: Adaptor, config: AdaptorConfig): TtrpcServer {
  return new TtrpcServer({ missingMethodStatus: Status.unimplemented }).addService(Hypervisor, {
    createVM: async (request) => ({ agentSocketPath: await adaptor.create(parseVmRequest(request, config)) }),
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
