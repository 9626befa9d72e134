import { SealpodError } from '@sealpod/protocol/errors';
import { composeInitdata } from '@sealpod/protocol/initdata';
import type { JsonObject } from '@sealpod/protocol/json';
import { parseResourceUri } from '@sealpod/protocol/resource-uri';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
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

    async function refusal(guest: BootedGuest): Promise<SealpodError> {
      try {
        await guest.agent.resource(key);
      } catch (error) {
        if (error instanceof SealpodError) return error;
        throw error;
      }
      throw new Error('the secret was released');
    }

    /** What an operator reads of the decision: every code of the record. */
    async function explanation(error: SealpodError): Promise<string> {
      expect(error.detail.correlationId).toMatch(/./);
      return (await broker.admin('GET', `/admin/v1/decisions/${error.detail.correlationId}`)).text;
    }

    it('releases a resource to the machine that was registered', async () => {
      const guest = await boot();
      expect(String(await guest.agent.resource(key))).toBe('the secret');
      expect(String(await guest.agent.resource(key))).toBe('the secret');
    });

    it.each([
      ['command line', { machine: { commandLine: `quiet roothash=${'ab'.repeat(32)}` } }, 'command_line'],
      ['kernel', { machine: { kernel: 'another kernel' } }, 'kernel'],
      ['initial RAM disk', { machine: { initrd: 'another initrd' } }, 'initrd'],
      ['root file system', { machine: { commandLine: `console=ttyS0 roothash=${'cd'.repeat(32)}` } }, 'root_hash'],
      ['loader', { machine: { loader: 'another loader' } }, 'loader'],
      ['firmware', { machine: { firmware: 'another firmware' } }, 'firmware'],
      ['initdata', { initdata: composeInitdata({ data: { x: 'y' } }) }, 'initdata'],
    ])('refuses an altered %s, and the record names it', async (_, options, component) => {
      const error = await refusal(await boot(options));
      expect(error.code).toMatch(/^(?:POLICY_DENY|RV_MISMATCH)$/);
      expect(await explanation(error)).toContain(component);
    });

    it('refuses a TPM whose maker is not enrolled', async () => {
      expect((await refusal(await boot({}, foreign))).code).toBe('EV_CERT_CHAIN');
    });

    it.each([
      ['a missing event', (events: readonly unknown[]) => events.slice(0, -1)],
      ['an event twice', (events: readonly unknown[]) => [...events, events.at(-1)]],
      ['no events', () => []],
    ])('G-20: refuses an event log with %s', async (_, change) => {
      const guest = await boot({ shown: change as NonNullable<BootOptions['shown']> });
      expect((await refusal(guest)).code).toMatch(/^EV_EVENTLOG_/);
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

    it('refuses the evidence of an earlier session: other nonce, other key', async () => {
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
      expect((await refusal(again)).code).toMatch(/^EV_(?:NONCE_MISMATCH|BINDING_MISMATCH|AK_UNTRUSTED)$/);
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
        expect(await explanation(error)).toContain('RV_NOT_LOADED');
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
