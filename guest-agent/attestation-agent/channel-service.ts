import { activationDigest, channelBinding } from '@sealpod/protocol/agent-channel';
import { SealpodError } from '@sealpod/protocol/errors';
import { AgentChannel } from '@sealpod/protocol/gen/sealpod/agent_channel_pb';
import type { TtrpcServer } from '@sealpod/protocol/ttrpc';
import type { Attester } from '../attesters/attester.ts';

const nonceBytes = 32;
const maxCredentialBytes = 1024;

/** Lets the other end of the agent channel see that the key of this end's TLS lives in this machine. */
export function addChannelService(server: TtrpcServer, attester: Attester, keySha256: string): void {
  const { identify, prove } = attester;
  if (identify === undefined || prove === undefined) return;
  server.addService(AgentChannel, {
    identify: async () => ({ attestationKey: await identify() }),
    prove: async ({ nonce, credentialBlob, encryptedSecret }) => {
      if (nonce.length !== nonceBytes) throw new SealpodError('REQUEST_FORMAT', `a nonce has ${nonceBytes} bytes`);
      for (const part of [credentialBlob, encryptedSecret]) {
        // Nothing may be read by the TPM as another parameter.
        const stated = part.length < 2 ? -1 : Buffer.from(part).readUInt16BE() + 2;
        if (part.length > maxCredentialBytes || stated !== part.length)
          throw new SealpodError('REQUEST_FORMAT', 'the credential is no sized TPM buffer');
      }
      const proof = await prove(channelBinding(nonce, keySha256), { credentialBlob, encryptedSecret });
      return { activation: activationDigest(proof.secret), quote: proof.quote, signature: proof.signature };
    },
  });
}
