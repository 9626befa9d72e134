/**
 * The reason codes that every part of sealpod shares: what happened, and what to do about it.
 *
 * A guest is told the code and a correlation id and nothing else; expected and actual values go to an authenticated
 * operator only (an attacker on the host would otherwise learn the policy).
 *
 * @module
 */

/** Code → what it means, and the first thing to do about it. */
export const reasonCodes = {
  // Evidence
  EV_FORMAT: ['the evidence could not be parsed', 'check that guest agent and attestation service are of one release'],
  EV_SIGNATURE: ['a signature of the evidence does not verify', 'treat the machine as hostile'],
  EV_CERT_CHAIN: [
    'a certificate does not chain to an enrolled root',
    'enrol the root, or treat the machine as hostile',
  ],
  EV_CERT_REVOKED: ['a certificate has been revoked', 'treat the machine as hostile'],
  EV_COLLATERAL_UNAVAILABLE: [
    'certificates or lists of the vendor could not be had',
    'check the way to the collateral service, or put them into the offline store',
  ],
  EV_COLLATERAL_EXPIRED: ['a revocation list or other collateral has expired', 'fetch it anew'],
  EV_COLLATERAL_ROLLBACK: [
    'a list or other collateral is older than one that was seen before',
    'fetch it anew; whoever serves it may be hiding a newer one',
  ],
  EV_TCB_STATUS: [
    'the vendor does not vouch for the firmware of this machine, or not enough for the configuration',
    'update firmware and microcode, and see that the collateral is of this platform',
  ],
  EV_VMPL: [
    'the report was asked for at a less privileged level than the guest itself',
    'attest from privilege level 0 (VMPL 0)',
  ],
  EV_NONCE_MISMATCH: ['the evidence answers another challenge', 'start a new session; a replay is refused'],
  EV_BINDING_MISMATCH: ['the evidence is not bound to this session key', 'treat the channel as intercepted'],
  EV_PART_MIX: ['parts of the evidence come from different machines', 'treat the machine as hostile'],
  EV_DEBUG_ON: ['a debug switch is on in the measured machine', 'start the production image'],
  EV_SIMULATED: ['the evidence comes from a simulated TEE', 'use a real TEE, or a policy that names simulation'],
  EV_AK_UNTRUSTED: [
    'the attestation key is not proved to live in the enrolled TPM',
    'attest with credential activation',
  ],
  EV_EVENTLOG_REPLAY: ['the event log does not replay to the quoted registers', 'treat the machine as hostile'],
  EV_EVENTLOG_UNKNOWN_EVENT: [
    'the event log holds an event that nothing accounts for',
    'compare with `sealpod podvm measure`',
  ],
  EV_REFUSED: ['the evidence was refused and no reason was told', 'see the log of the key broker'],
  EV_TEE_UNSUPPORTED: [
    'no verifier is enabled for this TEE',
    'enable the verifier in the attestation service configuration',
  ],
  // Reference values
  RV_NOT_LOADED: [
    'no reference value is registered for a measured component',
    'register it with `sealpod refvalue put`',
  ],
  RV_EXPIRED: ['the reference value has expired', 'measure and register it again'],
  RV_MISMATCH: ['a measured component differs from its reference value', 'start the image that was measured'],
  RV_UNSIGNED: [
    'the reference value has no provenance: nobody who is known has signed it',
    'sign it with an enrolled key, or register it as an administrator',
  ],
  RV_SIGNATURE: [
    'the signature of a reference value does not verify, or its signer may not speak for it',
    'enrol the signer, or treat the message as hostile',
  ],
  RV_SUPERSEDED: [
    'a newer statement about the reference value has been registered',
    'register the newest statement; an old one may be a rollback',
  ],
  RV_QUARANTINED: [
    'the reference value was learned and is not promoted',
    'see `sealpod refvalue diff`, then approve and promote it',
  ],
  RV_RETIRED: ['the reference value was in use and has been retired', 'start an image of a current release'],
  // Configuration
  INITDATA_DIGEST: ['the initdata is not the one that was measured', 'send the initdata the guest was started with'],
  INITDATA_SCHEMA: ['the initdata document is malformed', 'write it with `sealpod run` or after docs/'],
  POLICY_UNSET: ['no policy is set, and an unset policy refuses', 'set one with `sealpod policy put` or in initdata'],
  POLICY_DENY: ['a policy denies the request', 'see `sealpod explain` for the rule and the field'],
  POLICY_INVALID: ['a policy does not compile or exceeds its limits', 'check it with `sealpod policy test`'],
  POLICY_TIMEOUT: ['a policy ran out of its time or memory limit', 'simplify the policy'],
  // Image
  IMG_POLICY_DENY: ['the image policy refuses the image', 'pin the image by digest or name it in initdata'],
  IMG_DECRYPT_KEY: ['the layer key could not be unwrapped or is wrong', 'check the key resource in the key broker'],
  IMG_DIGEST: ['content does not have the digest it was asked for by', 'the registry or the host altered the image'],
  IMG_AUTH: ['the registry refused the credentials', 'check the credentials resource'],
  IMG_FORMAT: ['the image is malformed or of an unsupported type', 'build an OCI image'],
  IMG_UNPACK: ['a layer would write outside its root or exceeds a limit', 'the layer is hostile or too large'],
  IMG_REGISTRY: ['the registry could not be reached or answered with an error', 'check address and network'],
  // Volumes
  VOLUME_KEY: ['the key does not open the volume', 'check the key resource; the host may have swapped the volume'],
  VOLUME_FORMAT: [
    'the volume does not hold what it should',
    'the host altered or swapped it, or it was used differently before',
  ],
  // Release
  RES_NOT_FOUND: ['the resource does not exist', 'store it with `sealpod secret put`'],
  RES_FORBIDDEN: ['the caller may not use this resource', 'check role and policy'],
  RES_NAME: ['the resource name is not a valid repository/type/tag', 'use letters, digits, `_`, `-`, `.`'],
  SESSION_UNKNOWN: ['the session does not exist or has expired', 'start a new session'],
  TOKEN_INVALID: ['the attestation token does not verify or has expired', 'attest again'],
  TOKEN_MISSING: ['no attestation token was presented', 'attest first'],
  ADMIN_TOKEN: ['the administrator token is missing, expired or not trusted', 'make a new one with the owner key'],
  ADMIN_ROLE: ['the role of the administrator does not allow this', 'use a token of another role'],
  PROTOCOL_VERSION: ['the protocol version is not supported', 'use version 0.4.0'],
  REQUEST_FORMAT: ['the request is malformed', 'see the message'],
  REQUEST_TOO_LARGE: ['the request exceeds a size limit', 'send less'],
  RATE_LIMIT: ['too many requests', 'retry later'],
  STORAGE: ['the storage failed', 'check disk and permissions'],
  STORAGE_CONFLICT: ['the stored value was changed meanwhile', 'read it again and retry'],
  AUDIT_APPEND_FAILED: ['the decision could not be recorded, so nothing was released', 'check disk and permissions'],
  KBS_UNREACHABLE: ['the key broker could not be reached', 'check address, network and that it runs'],
  KBS_KEY: ['the key broker does not hold the key that initdata pins', 'the channel is intercepted, or the pin is old'],
  // Platform
  TEE_MISSING: ['no TEE or TPM was found in the guest', 'attach a TPM'],
  TEE_FAILED: ['the TEE or TPM of the guest failed', 'see the console log of the machine'],
  HYPERVISOR: ['the hypervisor could not start or lost the machine', 'see the adaptor log'],
  VM_ENDED: ['the pod VM has ended while its pod ran', 'see the end of its console in the adaptor log'],
  PROVIDER_IMAGE: ['the pod VM image is missing or damaged', 'build it with `sealpod podvm build`'],
  AGENT_UNREACHABLE: ['the guest agent did not answer', 'see the console log of the machine'],
  AGENT_POLICY_DENY: ['the agent policy blocks the request', 'allow it in policy.rego of initdata'],
  NETWORK: ['the pod network could not be set up', 'check the network namespace'],
  CLUSTER: ['the installation in the cluster does not work', 'run `sealpod doctor --cluster`'],
  CONTROL_PLANE: [
    'the Kubernetes API server refused or did not answer',
    'check its address and what the ServiceAccount may do',
  ],
  PREREQUISITE: ['something this machine needs is missing', 'run `sealpod doctor`'],
  USAGE: ['the command was used wrongly', 'see --help'],
  NOT_FOUND: ['there is no such thing', 'list what exists'],
  UNSUPPORTED: ['this is not supported', 'see docs/'],
  INTERNAL: ['an unexpected failure', 'report it with the correlation id'],
} as const satisfies Record<string, readonly [meaning: string, fix: string]>;

/** One of the shared reason codes. */
export type ReasonCode = keyof typeof reasonCodes;

/** What to do about a failure: its own advice, else that of its code. */
export function fixOf({
  code,
  detail,
}: {
  readonly code: ReasonCode;
  readonly detail: { readonly fix?: string };
}): string {
  return detail.fix ?? reasonCodes[code][1];
}

/** Whether `text` is a reason code of this release. */
export function isReasonCode(text: string): text is ReasonCode {
  return Object.hasOwn(reasonCodes, text);
}
