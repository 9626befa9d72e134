import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { initdataDigest } from '@sealpod/protocol/initdata';
import type { JsonObject } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import type { TpmEvidence } from '@sealpod/protocol/tpm';
import { type QuoteOptions, SoftwareTpm } from '@sealpod/protocol/tpm/testing';
import type { AttestationService } from '../../../service.ts';
import { tpmVerifier } from '../../tpm/index.ts';
import { TestAuthority } from '../../tpm/testing/authority.ts';
import { initdata, session, TestGuest } from '../../tpm/testing/mint.ts';
import { flipped, type MutatedTee } from './mutation.ts';

export async function tpmMutations(): Promise<MutatedTee> {
  const [own, foreign] = await Promise.all(
    [1, 2].map(async () => (await TestAuthority.root('CN=Test Root')).intermediate()),
  );
  if (own === undefined || foreign === undefined) throw new RangeError('no authority');
  const trust = { roots: [{ name: 'test TPMs', certificates: own.certificates, simulated: false }] };
  const challengeKey = randomBytes(32);
  const verifier = tpmVerifier(trust, challengeKey);
  const service: Pick<AttestationService, 'challenge'> = {
    challenge: async ({ tee_params: parameters = '' }) => verifier.challenge?.(parameters) ?? '',
  };
  const endorsementKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const guestOf = async (authority: TestAuthority, key = endorsementKey, faults = {}): Promise<TestGuest> =>
    new TestGuest(new SoftwareTpm({ endorsementKey: key }), await authority.endorse(endorsementKey, faults));
  const to = session(randomBytes(32).toString('base64'));
  const attest = async (guest: TestGuest, quote: QuoteOptions = {}): Promise<JsonObject> =>
    guest.evidence(to, await guest.activate(service, to.nonce), quote) as unknown as JsonObject;
  const guest = await guestOf(own);
  const genuine = (await attest(guest)) as unknown as TpmEvidence;
  const but = (change: object): JsonObject => ({ ...genuine, ...change }) as unknown as JsonObject;
  const quoted = (change: Partial<TpmEvidence['tpm_quote']>): JsonObject =>
    but({ tpm_quote: { ...genuine.tpm_quote, ...change } });
  const { pcrs, message, signature } = genuine.tpm_quote;
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const other = new TestGuest(new SoftwareTpm({ endorsementKey: stranger }), guest.certificate);
  const secret = await guest.activate(service, to.nonce);
  const { activated_secret: _secret, ek_certificate: _certificate, ...bare } = genuine;
  return {
    tee: 'tpm',
    verifier,
    expectations: {
      reportData: runtimeDataDigest(to),
      nonce: to.nonce,
      initDataDigest: initdataDigest(initdata, 'sha256'),
      trustedAttestationKeys: [],
      now: new Date(),
    },
    genuine: but({}),
    mutations: [
      { what: 'TPM of another root of that name', evidence: await attest(await guestOf(foreign)) },
      {
        what: 'endorsement certificate that has ended',
        evidence: await attest(await guestOf(own, endorsementKey, { notAfter: new Date(Date.now() - 1000) })),
      },
      {
        what: 'endorsement certificate of an authority',
        evidence: await attest(await guestOf(own, endorsementKey, { authority: true })),
      },
      {
        what: 'attestation key of another TPM',
        evidence: other.evidence(to, secret) as unknown as JsonObject,
      },
      {
        what: 'secret of another activation',
        evidence: but({ activated_secret: flipped(genuine.activated_secret, 0, 'base64') }),
      },
      { what: 'challenge of another service', evidence: but({}), by: tpmVerifier(trust, randomBytes(32)) },
      {
        what: 'key that nobody vouches for, where one is required',
        evidence: { ak_public: bare.ak_public, tpm_quote: genuine.tpm_quote } as unknown as JsonObject,
        by: tpmVerifier({ ...trust, requireTrustedKey: true }, challengeKey),
      },
      {
        what: 'public area of another key',
        evidence: but({ ak_public_area: other.tpm.publicArea.toString('base64') }),
      },
      { what: 'signature changed', evidence: quoted({ signature: flipped(signature, 20, 'base64') }) },
      { what: 'magic changed', evidence: quoted({ message: flipped(message, 0, 'base64') }) },
      { what: 'quote signed by another key', evidence: await attest(guest, { signer: stranger }) },
      { what: 'magic of the quote, signed', evidence: await attest(guest, { magic: 0xff544348 }) },
      { what: 'something that is no quote', evidence: await attest(guest, { type: 0x8017 }) },
      { what: 'quote of fewer registers', evidence: await attest(guest, { registers: [0, 1, 2, 3] }) },
      { what: 'quote of another bank', evidence: await attest(guest, { bank: 0x0c }) },
      { what: 'value of a register', evidence: quoted({ pcrs: [flipped(pcrs[0], 3, 'hex'), ...pcrs.slice(1)] }) },
      {
        what: 'registers in another order',
        evidence: quoted({ pcrs: [pcrs[1] ?? '', pcrs[0] ?? '', ...pcrs.slice(2)] }),
      },
      { what: 'registers left out', evidence: quoted({ pcrs: pcrs.slice(0, 8) }) },
      { what: 'event log changed', evidence: but({ event_log: flipped(genuine.event_log, 200, 'base64') }) },
      {
        what: 'event log cut short',
        evidence: but({
          event_log: Buffer.from(genuine.event_log ?? '', 'base64')
            .subarray(0, 300)
            .toString('base64'),
        }),
      },
      { what: 'another command line', evidence: but({ kernel_command_line: 'quiet' }) },
      { what: 'another session', evidence: but({}), against: { reportData: Buffer.alloc(48, 8) } },
      { what: 'another nonce', evidence: but({}), against: { nonce: 'b3RoZXI=' } },
      { what: 'other initdata', evidence: but({}), against: { initDataDigest: Buffer.alloc(32, 8) } },
      { what: 'malformed key', evidence: but({ ak_public: flipped(genuine.ak_public, 3, 'base64') }) },
    ],
  };
}
