import { SealpodError } from '@sealpod/protocol/errors';
import { AgentProxy } from '../agent-proxy/agent-proxy.ts';
import { SecureDial } from '../agent-proxy/secure-dial.ts';
import type { Instance } from '../providers/provider.ts';
import { proveGuest } from './guest-proof.ts';
import type { SandboxDependencies } from './sandbox-dependencies.ts';

/** The way to a guest's agent. */
export interface AgentConnection {
  readonly proxy: AgentProxy;
  /**
   * Proves that the guest's key on the channel lives in its machine, and pins it for the adaptors to come. Nothing of the
   * guest may be served before. Does nothing on a plain channel.
   *
   * @throws SealpodError as `proveGuest`; EV_AK_UNTRUSTED where the provider does not know the machine's TPM
   */
  prove(signal: AbortSignal): Promise<void>;
}

/** @param resumed whether the machine is an earlier adaptor's */
export function openAgentConnection(
  sandboxId: string,
  instance: Instance,
  resumed: boolean,
  { provider, channelKey, journal, log }: SandboxDependencies,
  onLost: () => void,
): AgentConnection {
  const options = { socketPath: instance.agentSocketPath, resumed, onLost };
  const guestKey = journal.records.get(sandboxId)?.guestKey;
  // A machine stays with what it began with, whatever this release or its configuration would choose.
  const plain = resumed ? guestKey === undefined : provider.agentTransport !== 'tls';
  if (plain) return { proxy: new AgentProxy(options), prove: async () => undefined };
  const secure = new SecureDial(channelKey, guestKey);
  const proxy = new AgentProxy({ ...options, dial: (path, timeoutMs) => secure.connect(path, timeoutMs) });
  return {
    proxy,
    prove: async (signal) => {
      const sha256 = secure.guestKey;
      const { endorsementCertificate } = instance;
      if (sha256 === undefined || endorsementCertificate === undefined) {
        throw new SealpodError('EV_AK_UNTRUSTED', 'the provider does not know the TPM of this machine', {
          fix: 'set agentTransport to plain for machines without a TPM of their own',
        });
      }
      const begun = performance.now();
      await proveGuest(proxy.guest, endorsementCertificate, sha256, signal);
      await journal.append({ type: 'guest key', sandboxId, sha256 });
      const ms = Math.round(performance.now() - begun);
      log.info({ sandbox: sandboxId, guestKey: sha256, ms }, 'the guest proved its key');
    },
  };
}
