/**
 * The agent channel with TLS: both ends have keys of their own in self-signed certificates, and pin each other's. What
 * binds the guest's key to its machine is a quote of the machine's TPM.
 *
 * @module
 */
export { activationDigest, channelBinding } from './binding.ts';
export {
  type ChannelIdentity,
  channelTls,
  createChannelIdentity,
  keyDigest,
  restoreChannelIdentity,
} from './identity.ts';
