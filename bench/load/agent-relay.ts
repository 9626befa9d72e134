/**
 * `agent-relay.ts guest SOCKET` serves an agent that answers reads with data and takes writes;
 * `agent-relay.ts relay GUEST-SOCKET SOCKET` relays to it as the adaptor does. Each prints `serving` once it does.
 *
 * @module
 */
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { AgentProxy } from '../../peer-pods/agent-proxy/agent-proxy.ts';

const [role, first = '', second = ''] = process.argv.slice(2);
if (role === 'guest') {
  await new TtrpcServer()
    .addService(Health, { check: () => ({ status: 1 }) })
    .addService(AgentService, {
      readStdout: ({ len }) => ({ data: Buffer.alloc(len, 7) }),
      writeStdin: ({ data }) => ({ len: data.length }),
    })
    .listen(first);
} else if (role === 'relay') {
  await new AgentProxy({ socketPath: first }).listen(second);
} else {
  throw new Error('usage: agent-relay.ts guest SOCKET | relay GUEST-SOCKET SOCKET');
}
process.stdout.write('serving\n');
