/**
 * `agent-relay.ts guest SOCKET` serves an agent that answers reads with data and takes writes;
 * `agent-relay.ts relay GUEST-SOCKET SOCKET` relays to it as the adaptor does. Each prints `serving` once it does.
 * `guest-tls` and `relay-tls` are the same with TLS between the two.
 *
 * @module
 */
import { createServer } from 'node:net';
import { createChannelIdentity } from '@sealpod/protocol/agent-channel';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { AgentChannel } from '../../guest-agent/boot/agent-channel.ts';
import { AgentProxy } from '../../peer-pods/agent-proxy/agent-proxy.ts';
import { SecureDial } from '../../peer-pods/agent-proxy/secure-dial.ts';

const [role, first = '', second = ''] = process.argv.slice(2);
const agent = new TtrpcServer().addService(Health, { check: () => ({ status: 1 }) }).addService(AgentService, {
  readStdout: ({ len }) => ({ data: Buffer.alloc(len, 7) }),
  writeStdin: ({ data }) => ({ len: data.length }),
});
switch (role) {
  case 'guest':
    await agent.listen(first);
    break;
  case 'guest-tls': {
    const serve = agent.serve.bind(agent);
    const channel = new AgentChannel(await createChannelIdentity(), serve, (_, text) =>
      process.stderr.write(`${text}\n`),
    );
    // Every byte stream of this benchmark begins with a TLS handshake.
    const listener = createServer((socket) => channel.accept(socket, 0x16));
    await new Promise<void>((resolve) => listener.listen(first, resolve));
    break;
  }
  case 'relay':
    await new AgentProxy({ socketPath: first }).listen(second);
    break;
  case 'relay-tls': {
    const secure = new SecureDial(await createChannelIdentity());
    const dial = (path: string, timeoutMs: number) => secure.connect(path, timeoutMs);
    await new AgentProxy({ socketPath: first, dial }).listen(second);
    break;
  }
  default:
    throw new Error('usage: agent-relay.ts guest[-tls] SOCKET | relay[-tls] GUEST-SOCKET SOCKET');
}
process.stdout.write('serving\n');
