import { SealpodError } from '@sealpod/protocol/errors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attest, authenticate, call } from '../testing/client.ts';
import { FakeAttestationService } from '../testing/fake-attestation-service.ts';
import { startTestKbs, type TestKbs } from '../testing/kbs.ts';

const challenge = JSON.stringify({ request_blob: 'AAAA' });

/** An attestation service that has a verifier of IBM Secure Execution. */
class WithSecureExecution extends FakeAttestationService {
  seen: string[] = [];

  override async challenge(): Promise<string> {
    return challenge;
  }

  override async evaluate(request: Parameters<FakeAttestationService['evaluate']>[0]): Promise<never> {
    this.seen.push(...request.evidences.map(({ tee, hashAlgorithm }) => `${tee} ${hashAlgorithm}`));
    throw new SealpodError('EV_FORMAT', 'not looked at');
  }
}

const attestation = new WithSecureExecution();
let kbs: TestKbs;
beforeAll(async () => {
  kbs = await startTestKbs({}, { attestation });
});
afterAll(() => kbs.remove());

describe('a session of IBM Secure Execution', () => {
  it('has the attestation service’s challenge for its nonce, and SHA-512 where the guest lists it', async () => {
    const extraParams = { 'supported-hash-algorithms': ['sha384', 'SHA512'] };
    const guest = await authenticate(kbs.address, { tee: 'se', 'extra-params': extraParams });
    expect(guest.nonce).toBe(challenge);
    expect(guest.extraParams).toEqual({ 'selected-hash-algorithm': 'sha512' });
    const silent = await authenticate(kbs.address, { tee: 'se' });
    expect(silent.extraParams).toBe('');
    expect((await attest(kbs.address, silent)).status).toBe(401);
    expect(attestation.seen).toEqual(['se sha512']);
  });

  it('is refused to a guest whose algorithms lack SHA-512', async () => {
    const body = JSON.stringify({
      version: '0.4.0',
      tee: 'se',
      'extra-params': { 'supported-hash-algorithms': ['sha384'] },
    });
    const reply = await call(kbs.address, '/kbs/v0/auth', { method: 'POST', body });
    expect(reply.status).toBe(401);
    expect(reply.json()['detail']).toContain('sha512');
  });
});
