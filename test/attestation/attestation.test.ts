import type { Decision } from '@sealpod/kbs/audit';
import { SealpodError } from '@sealpod/protocol/errors';
import { EventType } from '@sealpod/protocol/event-log';
import { composeInitdata } from '@sealpod/protocol/initdata';
import type { JsonObject } from '@sealpod/protocol/json';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { parseResourceUri } from '@sealpod/protocol/resource-uri';
import { failures } from '@sealpod/protocol/verdict';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { BootEvent } from '../../attestation-service/verifiers/tpm/testing/boot.ts';
import type { Attester } from '../../guest-agent/attesters/attester.ts';
import { createSoftwareTpm, missingSoftwareTpm, type SoftwareTpm } from '../../guest-agent/testing/software-tpm.ts';
import {
  type BootedGuest,
  type BootOptions,
  bootGuest,
  registerMachine,
  startBroker,
  type TestBroker,
} from './machine.ts';

const missing = missingSoftwareTpm();
const initdata = composeInitdata({ data: { 'policy.rego': 'package agent_policy\n' } });
const key = parseResourceUri('kbs:///default/key/1');

describe.skipIf(missing !== undefined)(
  `guest attester, key broker and attestation service on real software TPMs${missing === undefined ? '' : `: ${missing}`}`,
  () => {
    let tpm: SoftwareTpm;
    let foreign: SoftwareTpm;
    let broker: TestBroker;
    const guests: BootedGuest[] = [];

    beforeAll(async () => {
      [tpm, foreign] = await Promise.all([createSoftwareTpm(), createSoftwareTpm()]);
      broker = await startBroker(tpm);
      await broker.admin('PUT', '/admin/v1/resources/default/key/1', 'the secret');
      const reference = await boot();
      await registerMachine(broker, reference.pcrs, initdata);
    }, 120_000);
    afterEach(async () => {
      for (const guest of guests.splice(0)) await guest.close();
    });
    afterAll(async () => {
      for (const guest of guests.splice(0)) await guest.close();
      await broker?.close();
      await tpm?.remove();
      await foreign?.remove();
    });

    async function boot(options: Partial<BootOptions> = {}, on = tpm): Promise<BootedGuest> {
      // A software TPM serves one connection: the one before has to go.
      for (const guest of guests.splice(0)) await guest.close();
      const guest = await bootGuest(on, { broker, initdata, ...options });
      guests.push(guest);
      return guest;
    }

    /** The guest is refused: it gets an error in the secret's place, and the broker has released nothing to it. */
    async function refusal(guest: BootedGuest): Promise<SealpodError> {
      const releases = await releasesSoFar();
      const thrown = await guest.agent.resource(key).then(
        () => new Error('the secret was released'),
        (error: unknown) => error,
      );
      if (!(thrown instanceof SealpodError)) throw thrown;
      expect(await releasesSoFar()).toBe(releases);
      return thrown;
    }

    /** How often the broker has recorded that it gives a secret away; it records before it does. */
    async function releasesSoFar(): Promise<number> {
      const { text } = await broker.admin('GET', '/admin/v1/decisions?limit=1000');
      const { decisions } = JSON.parse(text) as { readonly decisions: readonly Decision[] };
      return decisions.filter(({ kind, outcome }) => kind === 'resource' && outcome === 'OK').length;
    }

    /** What an operator reads of the decision: each failed check, as `component: code`. */
    async function explanation(error: SealpodError): Promise<string[]> {
      expect(error.detail.correlationId).toMatch(/./);
      const { text } = await broker.admin('GET', `/admin/v1/decisions/${error.detail.correlationId}`);
      const { decisions } = JSON.parse(text) as { readonly decisions: readonly Decision[] };
      return decisions
        .flatMap(({ verdict }) => (verdict === undefined ? [] : failures(verdict)))
        .map(({ check, code }) => `${check}: ${code}`);
    }

    it('releases a resource to the machine that was registered', async () => {
      const guest = await boot();
      const releases = await releasesSoFar();
      expect(String(await guest.agent.resource(key))).toBe('the secret');
      expect(String(await guest.agent.resource(key))).toBe('the secret');
      expect(await releasesSoFar()).toBe(releases + 2);
    });

    it.each([
      ['command line', { machine: { commandLine: `quiet roothash=${'ab'.repeat(32)}` } }, 'command line'],
      ['kernel', { machine: { kernel: 'another kernel' } }, 'kernel'],
      ['initial RAM disk', { machine: { initrd: 'another initrd' } }, 'initrd'],
      ['root file system', { machine: { commandLine: `console=ttyS0 roothash=${'cd'.repeat(32)}` } }, 'root hash'],
      ['loader', { machine: { loader: 'another loader' } }, 'loader'],
      ['firmware', { machine: { firmware: 'another firmware' } }, 'firmware'],
      ['initdata', { initdata: composeInitdata({ data: { x: 'y' } }) }, 'initdata'],
    ])('refuses an altered %s, and the record names it', async (_, options, component) => {
      const error = await refusal(await boot(options));
      expect(error.code).toMatch(/^(?:POLICY_DENY|RV_MISMATCH)$/);
      expect(await explanation(error)).toContain(`${component}: RV_MISMATCH`);
    });

    it('refuses a TPM whose maker is not enrolled', async () => {
      expect((await refusal(await boot({}, foreign))).code).toBe('EV_CERT_CHAIN');
    });

    const silent: BootEvent = { register: 0, type: EventType.EV_NO_ACTION, data: Buffer.from('nobody extends this') };
    const unmeasured: BootEvent = { register: 12, type: EventType.EV_IPL, data: Buffer.from('never measured') };
    const logs: readonly [string, ReasonCode, NonNullable<BootOptions['shown']>][] = [
      ['a missing event', 'EV_EVENTLOG_REPLAY', (events) => events.slice(0, -1)],
      ['an event twice', 'EV_EVENTLOG_REPLAY', (events) => [...events, ...events.slice(-1)]],
      ['an additional event', 'EV_EVENTLOG_REPLAY', (events) => [...events, unmeasured]],
      ['an additional event that extends nothing', 'EV_EVENTLOG_UNKNOWN_EVENT', (events) => [...events, silent]],
      ['no events', 'EV_EVENTLOG_REPLAY', () => []],
    ];
    it.each(logs)('G-20: refuses an event log with %s: %s', async (_, code, shown) => {
      expect((await refusal(await boot({ shown }))).code).toBe(code);
    });

    it('G-05: refuses an attestation key of another TPM', async () => {
      const other = (await boot({}, foreign)).attester;
      const stranger = (await other.prepare())['tpm'] as JsonObject;
      const guest = await boot({
        attester: (genuine) => ({
          ...genuine,
          tee: 'tpm',
          // Own certificate, foreign key: the challenge then holds a credential that this TPM cannot open.
          prepare: async () => ({
            tpm: { ...((await genuine.prepare())['tpm'] as JsonObject), 'ak-public': stranger['ak-public'] ?? null },
          }),
        }),
      });
      expect((await refusal(guest)).code).toBe('EV_AK_UNTRUSTED');
    });

    it('G-05: refuses a guest that does not prove its key', async () => {
      const guest = await boot({ attester: (genuine) => ({ ...genuine, tee: 'tpm', prepare: async () => ({}) }) });
      expect((await refusal(guest)).code).toMatch(/^EV_(?:FORMAT|AK_UNTRUSTED)$/);
    });

    it('refuses a stale nonce: the whole evidence of an earlier session', async () => {
      let first: JsonObject | undefined;
      const replaying = (genuine: Attester): Attester => ({
        ...genuine,
        tee: 'tpm',
        evidence: async (data, challenge) => {
          const fresh = await genuine.evidence(data, challenge);
          first ??= fresh;
          return first;
        },
      });
      const guest = await boot({ attester: replaying });
      expect(String(await guest.agent.resource(key))).toBe('the secret');
      const again = await boot({ attester: replaying });
      expect((await refusal(again)).code).toBe('EV_NONCE_MISMATCH');
    });

    it('G-06: refuses a quote that answers this challenge but was made for another TEE key', async () => {
      const guest = await boot({
        attester: (genuine) => ({
          ...genuine,
          tee: 'tpm',
          // What a relay gets from the genuine guest: proof of the key for this nonce, the digest of the guest's own key.
          evidence: (data, challenge) => genuine.evidence(Buffer.from(data).reverse(), challenge),
        }),
      });
      expect((await refusal(guest)).code).toBe('EV_BINDING_MISMATCH');
    });

    it('G-22: refuses parts of evidence from two machines', async () => {
      const stranger = (await boot({}, foreign)).attester;
      const foreignEvidence = await stranger.evidence(Buffer.alloc(48), '');
      for (const part of ['ak_public', 'ak_public_area', 'ek_certificate', 'tpm_quote']) {
        const guest = await boot({
          attester: (genuine) => ({
            ...genuine,
            tee: 'tpm',
            evidence: async (data, challenge) => ({
              ...(await genuine.evidence(data, challenge)),
              [part]: foreignEvidence[part] ?? null,
            }),
          }),
        });
        expect([part, (await refusal(guest)).code]).toEqual([part, expect.stringMatching(/^EV_/)]);
      }
    });

    it('G-02: refuses where a reference value is missing', async () => {
      const present = (await broker.admin('GET', '/admin/v1/reference-values/tpm_kernel')).json();
      await broker.admin('DELETE', '/admin/v1/reference-values/tpm_kernel');
      try {
        const error = await refusal(await boot());
        expect(error.code).toMatch(/^(?:POLICY_DENY|RV_NOT_LOADED)$/);
        expect(await explanation(error)).toContain('kernel: RV_NOT_LOADED');
      } finally {
        await broker.admin('PUT', '/admin/v1/reference-values/tpm_kernel', JSON.stringify({ value: present['value'] }));
      }
      expect(String(await (await boot()).agent.resource(key))).toBe('the secret');
    });

    it('refuses what the policy denies, and hears of a change without a new machine', async () => {
      const guest = await boot();
      await guest.agent.resource(key);
      const deny = 'package policy\n\nimport rego.v1\n\ndefault allow := false\n';
      await broker.admin('PUT', '/admin/v1/policies/resource/resource-policy', deny);
      try {
        expect((await refusal(guest)).code).toBe('POLICY_DENY');
      } finally {
        await broker.admin('DELETE', '/admin/v1/policies/resource/resource-policy');
      }
    });

    it('refuses a broker with another key, and says where none answers', async () => {
      const impostor = await startBroker(foreign);
      try {
        const guest = await boot({ broker: { address: impostor.address, certificate: broker.certificate } });
        expect((await refusal(guest)).code).toBe('KBS_KEY');
      } finally {
        await impostor.close();
      }
      const guest = await boot({ broker: { address: impostor.address, certificate: impostor.certificate } });
      expect((await refusal(guest)).code).toBe('KBS_UNREACHABLE');
    });

    it('says that a resource does not exist', async () => {
      const guest = await boot();
      await expect(guest.agent.resource(parseResourceUri('kbs:///default/key/none'))).rejects.toMatchObject({
        code: 'RES_NOT_FOUND',
      });
    });
  },
);
