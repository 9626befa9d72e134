import { randomBytes, timingSafeEqual, X509Certificate } from 'node:crypto';
import { activationDigest, channelBinding } from '@sealpod/protocol/agent-channel';
import { SealpodError } from '@sealpod/protocol/errors';
import { AgentChannel } from '@sealpod/protocol/gen/sealpod/agent_channel_pb';
import {
  AttestType,
  attestMagic,
  makeCredential,
  ObjectAttribute,
  objectName,
  parseAttest,
  parsePublicArea,
  parseSignature,
  publicAreaKey,
  verifySignature,
} from '@sealpod/protocol/tpm';
import type { GuestChannel } from '../agent-proxy/guest-channel.ts';
import { ask } from './guest.ts';

const timeoutMs = 30_000;
const nonceBytes = 32;
const restricted =
  ObjectAttribute.restricted |
  ObjectAttribute.sign |
  ObjectAttribute.fixedTpm |
  ObjectAttribute.fixedParent |
  ObjectAttribute.sensitiveDataOrigin;

/**
 * Makes sure that the TLS key at the other end of the agent channel lives in the machine whose TPM has this endorsement
 * key: that TPM opens a credential for an attestation key of its own, and that key signs the TLS key with a fresh nonce.
 * What runs in the machine is not judged here; that is the key broker's.
 *
 * @param endorsementCertificate X.509, DER, as the TPM's maker gave it: nothing of it is taken from the guest
 * @throws SealpodError EV_AK_UNTRUSTED, EV_SIGNATURE, EV_BINDING_MISMATCH, EV_FORMAT; TtrpcError with the guest's words
 */
export async function proveGuest(
  guest: GuestChannel,
  endorsementCertificate: Uint8Array,
  keySha256: string,
  signal: AbortSignal,
): Promise<void> {
  const options = { timeoutMs, signal };
  const { attestationKey } = await ask(guest, AgentChannel.method.identify, {}, options);
  const publicArea = parsePublicArea(attestationKey);
  if ((publicArea.attributes & (restricted | ObjectAttribute.decrypt)) !== restricted) {
    throw new SealpodError('EV_AK_UNTRUSTED', 'the attestation key of the guest may sign what its TPM did not make');
  }
  const endorsementKey = new X509Certificate(endorsementCertificate).publicKey;
  const [nonce, secret] = [randomBytes(nonceBytes), randomBytes(nonceBytes)];
  const credential = makeCredential(endorsementKey, objectName(attestationKey), secret);
  const { activation, quote, signature } = await ask(
    guest,
    AgentChannel.method.prove,
    { nonce, ...credential },
    options,
  );
  const expected = activationDigest(secret);
  if (activation.length !== expected.length || !timingSafeEqual(activation, expected)) {
    throw new SealpodError('EV_AK_UNTRUSTED', 'the guest is not the machine of this TPM', {
      expected: 'the secret that only its TPM releases',
    });
  }
  if (!verifySignature(publicAreaKey(publicArea), parseSignature(signature), quote)) {
    throw new SealpodError('EV_SIGNATURE', 'the quote of the guest does not verify');
  }
  const { magic, type, extraData } = parseAttest(quote);
  if (magic !== attestMagic || type !== AttestType.quote) {
    throw new SealpodError('EV_SIGNATURE', 'what the guest signed is no quote of a TPM');
  }
  const binding = channelBinding(nonce, keySha256);
  if (!extraData.equals(binding)) {
    throw new SealpodError('EV_BINDING_MISMATCH', 'the quote of the guest is for another TLS key', {
      expected: binding.toString('hex'),
      actual: extraData.toString('hex'),
    });
  }
}
