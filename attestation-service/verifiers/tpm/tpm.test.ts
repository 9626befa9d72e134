import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EventType } from '@sealpod/protocol/event-log';
import { initdataDigest } from '@sealpod/protocol/initdata';
import type { JsonObject } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { Algorithm, ObjectAttribute, type TpmEvidence } from '@sealpod/protocol/tpm';
import { attestationKeyAttributes, type QuoteOptions, SoftwareTpm } from '@sealpod/protocol/tpm/testing';
import { failures, passed } from '@sealpod/protocol/verdict';
import { openStorage, type Storage } from '@sealpod/storage';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  AttestationRefused,
  type AttestationService,
  createAttestationService,
  type Evaluation,
  simulatedTpmPolicy,
} from '../../index.ts';
import { tpmVerifier } from './index.ts';
import type { CertificateFaults } from './testing/authority.ts';
import { KeyUsageFlags, TestAuthority } from './testing/authority.ts';
import type { BootEvent } from './testing/boot.ts';
import { encodeLog } from './testing/boot.ts';
import { initdata, type Session, session, TestGuest, toEvaluate } from './testing/mint.ts';

const endorsementKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const otherEndorsementKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
let folder: string;
let storage: Storage;
let service: AttestationService;
let hardware: TestAuthority;
let simulated: TestAuthority;
let foreign: TestAuthority;
let certificate: Buffer;
let genuine: TestGuest;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tpm-verifier-'));
  hardware = await (await TestAuthority.root('CN=Hardware Root')).intermediate();
  simulated = await TestAuthority.root('CN=Simulated Root');
  foreign = await (await TestAuthority.root('CN=Hardware Root')).intermediate();
  storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
  service = await createAttestationService(
    {
      tpm: {
        roots: [
          { name: 'hardware', certificates: hardware.certificates, simulated: false },
          { name: 'software', certificates: simulated.certificates, simulated: true },
        ],
      },
    },
    { storage },
  );
  certificate = await hardware.endorse(endorsementKey);
  genuine = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate);
});
afterAll(async () => {
  await service.close();
  await storage.close();
  await rm(folder, { recursive: true, force: true });
});

/** Evaluates what a guest says in a session; by default a whole honest session. */
async function attest(
  guest: TestGuest,
  change: (evidence: TpmEvidence) => TpmEvidence = (evidence) => evidence,
  quote: QuoteOptions = {},
): Promise<Evaluation> {
  const now = session(randomBytes(32).toString('base64'));
  return evaluate(
    change(guest.evidence(now, await guest.activate(service, now.nonce), quote)),
    now,
    guest.initdata ?? null,
  );
}
const evaluate = (evidence: TpmEvidence, to: Session, toml: string | null = initdata): Promise<Evaluation> =>
  service.evaluate({ evidences: [toEvaluate(evidence, to, toml ?? undefined)], policyIds: [], correlationId: 'c-1' });
const statusOf = ({ claims }: Evaluation): string | undefined => claims.submods['cpu0']?.['ear.status'];
const claimsOf = ({ claims }: Evaluation): JsonObject =>
  claims.submods['cpu0']?.['ear.veraison.annotated-evidence']['tpm'] as JsonObject;

/** The codes of a refusal; fails where the evidence was accepted. */
async function refused(evaluation: Promise<Evaluation>): Promise<string[]> {
  const thrown: unknown = await evaluation.catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(AttestationRefused);
  const { verdict, code } = thrown as AttestationRefused;
  const codes = failures(verdict).map((failure) => failure.code);
  expect(codes[0]).toBe(code);
  return codes as string[];
}

/** Registers what a guest measured, as `sealpod podvm measure` predicts it. */
async function register(guest: TestGuest): Promise<void> {
  const components = claimsOf(await attest(guest))['components'] as Record<string, string>;
  for (const [name, value] of Object.entries(components)) await service.setReferenceValue(`tpm_${name}`, [value]);
}
async function forget(): Promise<void> {
  for (const { id } of await service.listReferenceValues()) await service.deleteReferenceValue(id);
}

describe('appraisal', () => {
  beforeEach(async () => {
    await forget();
    await register(genuine);
  });

  it('affirms the measured machine under an enrolled root', async () => {
    const evaluation = await attest(genuine);
    expect(failures(evaluation.verdict)).toEqual([]);
    expect(passed(evaluation.verdict)).toBe(true);
    expect(statusOf(evaluation)).toBe('affirming');
    expect(evaluation.claims.submods['cpu0']?.['ear.trustworthiness-vector']).toMatchObject({
      executables: 3,
      hardware: 2,
      configuration: 2,
    });
    expect(claimsOf(evaluation)).toMatchObject({
      ak_trust: 'activated',
      simulated: false,
      ek_root: 'hardware',
      debug: false,
      reset_count: 7,
      components: { root_hash: 'ab'.repeat(32), initdata: initdataDigest(initdata, 'sha256').toString('hex') },
    });
    expect(Object.keys(claimsOf(evaluation)).filter((name) => /^pcr\d\d$/.test(name))).toHaveLength(24);
    expect(evaluation.claims.submods['cpu0']?.['ear.veraison.annotated-evidence']).toHaveProperty('report_data');
  });

  it('G-02: genuine evidence without any reference value never affirms, and each missing one is named', async () => {
    await forget();
    const evaluation = await attest(genuine);
    expect(statusOf(evaluation)).toBe('contraindicated');
    expect(failures(evaluation.verdict).map(({ code, check }) => `${code} ${check}`)).toEqual([
      ...[
        'firmware',
        'firmware configuration',
        'loader',
        'kernel',
        'command line',
        'initrd',
        'root hash',
        'initdata',
      ].map((name) => `RV_NOT_LOADED ${name}`),
      'POLICY_DENY policy default_cpu',
    ]);
  });

  const altered = {
    'command line': [{ machine: { commandLine: `quiet roothash=${'ab'.repeat(32)}` } }, ['command line']],
    'root hash': [
      { machine: { commandLine: `console=ttyS0 roothash=${'cd'.repeat(32)}` } },
      ['command line', 'root hash'],
    ],
    kernel: [{ machine: { kernel: 'another kernel' } }, ['kernel']],
    initrd: [{ machine: { initrd: 'another initrd' } }, ['initrd']],
    loader: [{ machine: { loader: 'another image' } }, ['loader']],
    firmware: [{ machine: { firmware: 'another firmware' } }, ['firmware']],
    initdata: [{ initdata: `${initdata}\n` }, ['initdata']],
  } as const;
  it.each(Object.entries(altered))(
    'a changed %s is named with what was expected and what was measured',
    async (_, [change, components]) => {
      const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, change);
      const evaluation = await attest(guest);
      expect(statusOf(evaluation)).not.toBe('affirming');
      const reasons = failures(evaluation.verdict).filter(({ code }) => code === 'RV_MISMATCH');
      expect(reasons.map(({ check }) => check)).toEqual(components);
      for (const { check, expected, actual, source } of reasons) {
        const name = check.replaceAll(' ', '_');
        expect(source).toBe(`reference value tpm_${name}`);
        expect(expected).toBe((claimsOf(await attest(genuine))['components'] as JsonObject)[name]);
        expect(actual).toBe((claimsOf(evaluation)['components'] as JsonObject)[name]);
      }
    },
  );

  it('a simulated TPM is affirmed by the policy that names simulation, and by no other', async () => {
    const guest = new TestGuest(
      new SoftwareTpm({ endorsementKey: otherEndorsementKey }),
      await simulated.endorse(otherEndorsementKey),
    );
    const denied = await attest(guest);
    expect(claimsOf(denied)).toMatchObject({ simulated: true, ek_root: 'software' });
    expect(denied.claims.submods['cpu0']?.['ear.trustworthiness-vector'].hardware).toBe(97);
    expect(failures(denied.verdict).map(({ code }) => code)).toEqual(['EV_SIMULATED', 'POLICY_DENY']);
    const built = await service.getPolicy('default_cpu');
    await service.setPolicy('default_cpu', simulatedTpmPolicy);
    expect(statusOf(await attest(guest))).toBe('affirming');
    await service.deleteReferenceValue('tpm_kernel');
    const missing = await attest(guest);
    expect(failures(missing.verdict).map(({ code, check }) => `${code} ${check}`)).toEqual([
      'RV_NOT_LOADED kernel',
      'POLICY_DENY policy default_cpu',
    ]);
    expect(statusOf(await attest(genuine))).toBe('contraindicated');
    await service.setPolicy('default_cpu', built?.policy ?? '');
  });

  it('a clone of a template says so, and is affirmed only where its command line is named as one', async () => {
    const commandLine = `roothash=${'ab'.repeat(32)} sealpod.template=1`;
    const clone = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, { machine: { commandLine } });
    await register(clone);
    const executables = async (policyId: string, guest: TestGuest): Promise<number | undefined> => {
      const now = session(randomBytes(32).toString('base64'));
      const evidence = guest.evidence(now, await guest.activate(service, now.nonce));
      const evidences = [toEvaluate(evidence, now, initdata)];
      const { claims } = await service.evaluate({ evidences, policyIds: [policyId], correlationId: 'c-1' });
      return claims.submods['cpu0']?.['ear.trustworthiness-vector'].executables;
    };
    expect(claimsOf(await attest(genuine))).toMatchObject({ template: false });
    const evaluation = await attest(clone);
    expect(claimsOf(evaluation)).toMatchObject({ template: true, command_line: commandLine });
    expect(statusOf(evaluation)).toBe('warning');
    for (const policy of ['default', 'simulated-tpm']) expect(await executables(policy, clone)).toBe(33);
    const { command_line: digest = '' } = claimsOf(evaluation)['components'] as Record<string, string>;
    await service.setReferenceValue('tpm_template_command_line', [digest]);
    expect(await executables('simulated-tpm', clone)).toBe(3);
    expect(await executables('default', clone)).toBe(33);
    await service.deleteReferenceValue('tpm_command_line');
    expect(await executables('simulated-tpm', clone)).toBe(33);
  });

  it.each([
    { machine: { commandLine: `roothash=${'ab'.repeat(32)} sealpod.debug=1` } },
    { machine: { commandLine: `roothash=${'ab'.repeat(32)} agent.debug_console` } },
    { initdata: `${initdata}"policy.rego" = "default AllowRequestsFailingPolicy := true"\n` },
    { initdata: `${initdata}"extra" = "debug_console = true"\n` },
    // Written so that the text of the document does not show it, and what the guest reads does.
    { initdata: `${initdata}"policy.rego" = "default \\u0041llowRequestsFailingPolicy := true"\n` },
    { initdata: `${initdata}"policy.rego" = "default AllowRequests\\U00000046ailingPolicy := true"\n` },
  ])('G-17: a debug switch is a claim that no default policy affirms: %j', async (change) => {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, change);
    await register(guest);
    const evaluation = await attest(guest);
    expect(claimsOf(evaluation)).toMatchObject({ debug: true });
    expect(statusOf(evaluation)).toBe('contraindicated');
    expect(failures(evaluation.verdict).map(({ code }) => code)).toEqual(['EV_DEBUG_ON', 'POLICY_DENY']);
  });

  it('G-17: initdata of which only the digest is shown may hold any debug switch', async () => {
    const now = session(randomBytes(32).toString('base64'));
    const evidence = genuine.evidence(now, await genuine.activate(service, now.nonce));
    const digest = initdataDigest(initdata, 'sha256');
    const request = { ...toEvaluate(evidence, now, undefined), initData: { digest } };
    const evaluation = await service.evaluate({ evidences: [request], policyIds: [], correlationId: 'c-1' });
    expect(claimsOf(evaluation)).toMatchObject({
      debug: true,
      debug_switches: ['initdata of which only the digest is shown'],
    });
    expect(statusOf(evaluation)).toBe('contraindicated');
  });

  it('a policy that plainly forbids failing requests is no debug switch', async () => {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, {
      initdata: `${initdata}"policy.rego" = "default AllowRequestsFailingPolicy := false"\n`,
    });
    expect(claimsOf(await attest(guest))).toMatchObject({ debug: false });
  });
});

describe('refusals', () => {
  it('foreign root: the same names, another key', async () => {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), await foreign.endorse(endorsementKey));
    expect(await refused(attest(guest))).toEqual(['EV_CERT_CHAIN']);
  });

  const faults: Record<string, CertificateFaults> = {
    expired: { notAfter: new Date(Date.now() - 1000) },
    'not valid yet': { notBefore: new Date(Date.now() + 3_600_000) },
    'an authority itself': { authority: true },
    'of another key usage': { usage: KeyUsageFlags.digitalSignature },
    'of another extended key usage': { extendedUsage: '1.3.6.1.5.5.7.3.1' },
    'with an unknown critical extension': { criticalExtension: '1.2.3.4' },
  };
  it.each(Object.entries(faults))('an endorsement key certificate that is %s', async (_, fault) => {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), await hardware.endorse(endorsementKey, fault));
    expect(await refused(attest(guest))).toEqual(['EV_CERT_CHAIN']);
  });

  it('an endorsement key certificate as issuer of another, or below a path that is too long', async () => {
    const root = await TestAuthority.root('CN=Short Root', { pathLength: 0 });
    const below = await root.intermediate();
    const notAuthority = await root.intermediate('CN=No Authority', { authority: false });
    const mayNotSign = await root.intermediate('CN=No Signer', { usage: KeyUsageFlags.digitalSignature });
    for (const authority of [below, notAuthority, mayNotSign]) {
      const roots = [{ name: 'short', certificates: authority.certificates, simulated: false }];
      const own = await createAttestationService({ tpm: { roots } }, { storage });
      const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), await authority.endorse(endorsementKey));
      const now = session('n');
      const evidence = guest.evidence(now, await guest.activate(own, 'n'));
      expect(
        await refused(
          own.evaluate({ evidences: [toEvaluate(evidence, now, initdata)], policyIds: [], correlationId: 'c' }),
        ),
      ).toEqual(['EV_CERT_CHAIN']);
      await own.close();
    }
  });

  it('G-05: an attestation key of another TPM: the TPM of the certificate releases nothing for it', async () => {
    const other = new TestGuest(new SoftwareTpm({ endorsementKey: otherEndorsementKey }), certificate);
    const now = session('fresh');
    await expect(genuine.activate(service, now.nonce, other.tpm.publicArea)).rejects.toThrow('TPM_RC_INTEGRITY');
    // The other key with the genuine certificate, and whatever secret the attacker can get: that of the genuine key.
    const secret = await genuine.activate(service, now.nonce);
    expect(await refused(evaluate(other.evidence(now, secret), now))).toEqual(['EV_AK_UNTRUSTED']);
  });

  it('G-05: a key without any proof, as upstream sends it, is trusted only where the operator enrolled it', async () => {
    const now = session('plain');
    const { ak_public, tpm_quote } = genuine.evidence(now, Buffer.alloc(32));
    const plain = { ak_public, tpm_quote };
    await forget();
    const asserted = await evaluate(plain, now);
    expect(claimsOf(asserted)).toMatchObject({ ak_trust: 'self-asserted', simulated: null, ek_root: null });
    expect(statusOf(asserted)).toBe('contraindicated');
    expect(failures(asserted.verdict).map(({ code }) => code)).toContain('EV_AK_UNTRUSTED');
    await service.setReferenceValue('trusted_aks', [ak_public]);
    const enrolled = await evaluate(plain, now);
    expect(claimsOf(enrolled)).toMatchObject({ ak_trust: 'enrolled', ek_root: null });
    expect(statusOf(enrolled)).toBe('contraindicated');
    const executables = async (evidence: TpmEvidence, to: Session): Promise<number | undefined> =>
      (await evaluate(evidence, to)).claims.submods['cpu0']?.['ear.trustworthiness-vector'].executables;
    await service.setReferenceValue('tpm_pcr11', [claimsOf(enrolled)['pcr11'] ?? '']);
    expect(await executables(plain, now)).toBe(33);
    await service.setReferenceValue('tpm_pcr04', [claimsOf(enrolled)['pcr04'] ?? '']);
    expect(await executables(plain, now)).toBe(3);
    const { activated_secret: _, ...unproved } = genuine.evidence(now, Buffer.alloc(32));
    expect(claimsOf(await evaluate(unproved, now))).toMatchObject({ ak_trust: 'enrolled', ek_root: null });
    const { ek_certificate: __, ...incomplete } = genuine.evidence(now, Buffer.alloc(32));
    expect(await refused(evaluate(incomplete, now))).toEqual(['EV_FORMAT']);
    await service.setReferenceValue('trusted_aks', [ak_public], { expiresAt: '2020-01-01T00:00:00Z' });
    expect(claimsOf(await evaluate(plain, now))).toMatchObject({ ak_trust: 'self-asserted' });
    await forget();
  });

  it('G-05, finding 4: a key that vouches for itself affirms nothing of the hardware, whatever values are registered', async () => {
    const now = session('asserted');
    const { ak_public, tpm_quote } = genuine.evidence(now, Buffer.alloc(32));
    await forget();
    const { components, ...registers } = claimsOf(await evaluate({ ak_public, tpm_quote }, now));
    for (const [name, value] of Object.entries(components as JsonObject))
      await service.setReferenceValue(`tpm_${name}`, [value]);
    for (const register of ['pcr04', 'pcr11'])
      await service.setReferenceValue(`tpm_${register}`, [registers[register] ?? '']);
    for (const policyId of ['default', 'simulated-tpm']) {
      const { claims } = await service.evaluate({
        evidences: [toEvaluate({ ak_public, tpm_quote }, now, initdata)],
        policyIds: [policyId],
        correlationId: 'c',
      });
      expect(claims.submods['cpu0']?.['ear.trustworthiness-vector']).toMatchObject({ hardware: 97, executables: 33 });
    }
    await forget();
  });

  it('G-05: by a switch, a key that is neither proved nor enrolled is refused', async () => {
    const now = session('strict');
    const { ak_public, tpm_quote } = genuine.evidence(now, Buffer.alloc(32));
    const strict = tpmVerifier({ roots: [], requireTrustedKey: true }, Buffer.alloc(32));
    const { runtimeData: _, ...request } = toEvaluate({ ak_public, tpm_quote }, now, undefined);
    const verified = async (trustedAttestationKeys: string[]): Promise<string[]> => {
      const { verdict } = await strict.verify(request.evidence, {
        reportData: runtimeDataDigest(now),
        initDataDigest: initdataDigest(initdata, 'sha256'),
        trustedAttestationKeys,
        now: new Date(),
      });
      return failures(verdict).map(({ code }) => code);
    };
    expect(await verified([])).toEqual(['EV_AK_UNTRUSTED']);
    expect(await verified([ak_public])).toEqual([]);
  });

  it('plain evidence of an enrolled TPM whose other loader extended PCR 11 as the genuine one does', async () => {
    const now = session('loader');
    const { ak_public, tpm_quote } = genuine.evidence(now, Buffer.alloc(32));
    await forget();
    await service.setReferenceValue('trusted_aks', [ak_public]);
    const expected = claimsOf(await evaluate({ ak_public, tpm_quote }, now));
    for (const register of ['pcr04', 'pcr11'])
      await service.setReferenceValue(`tpm_${register}`, [expected[register] ?? '']);
    const machine = { loader: 'evil' };
    const impostor = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, { machine });
    const { tpm_quote: quote } = impostor.evidence(now, Buffer.alloc(32), { signer: genuine.tpm.attestationKey });
    const appraised = await evaluate({ ak_public, tpm_quote: quote }, now);
    expect(claimsOf(appraised)['pcr11']).toBe(expected['pcr11']);
    expect(appraised.claims.submods['cpu0']?.['ear.trustworthiness-vector'].executables).toBe(33);
    await forget();
  });

  it('a stale nonce: evidence of an earlier session', async () => {
    const before = session('before');
    const evidence = genuine.evidence(before, await genuine.activate(service, before.nonce));
    expect((await refused(evaluate(evidence, session('after'))))[0]).toBe('EV_NONCE_MISMATCH');
  });

  it('G-06: a quote replayed under another TEE key', async () => {
    const victim = session('same nonce', 'victim');
    const evidence = genuine.evidence(victim, await genuine.activate(service, victim.nonce));
    expect(await refused(evaluate(evidence, session('same nonce', 'attacker')))).toEqual(['EV_BINDING_MISMATCH']);
  });

  it('evidence that is bound to nothing', async () => {
    const { runtimeData, ...unbound } = toEvaluate(
      genuine.evidence(session('n'), Buffer.alloc(32)),
      session('n'),
      initdata,
    );
    expect(runtimeData).toBeDefined();
    expect((await refused(service.evaluate({ evidences: [unbound], policyIds: [], correlationId: 'c' })))[0]).toBe(
      'EV_BINDING_MISMATCH',
    );
  });

  it('G-22: parts of two TPMs that are both genuine', async () => {
    const other = new TestGuest(
      new SoftwareTpm({ endorsementKey: otherEndorsementKey }),
      await hardware.endorse(otherEndorsementKey),
    );
    const now = session('mixed');
    const one = genuine.evidence(now, await genuine.activate(service, now.nonce));
    const two = other.evidence(now, await other.activate(service, now.nonce));
    expect(statusOf(await evaluate(two, now))).toBeDefined();
    const expected: Partial<Record<keyof TpmEvidence, string>> = {
      ak_public: 'EV_SIGNATURE',
      tpm_quote: 'EV_SIGNATURE',
      ak_public_area: 'EV_PART_MIX',
      ek_certificate: 'EV_AK_UNTRUSTED',
      activated_secret: 'EV_AK_UNTRUSTED',
    };
    for (const [part, code] of Object.entries(expected)) {
      const mixed = { ...one, [part]: two[part as keyof TpmEvidence] };
      expect((await refused(evaluate(mixed, now)))[0], part).toBe(code);
    }
    const quote = { ...one, tpm_quote: { ...one.tpm_quote, pcrs: two.tpm_quote.pcrs.with(4, 'ee'.repeat(32)) } };
    expect((await refused(evaluate(quote, now)))[0]).toBe('EV_SIGNATURE');
  });

  const attributes = {
    restricted: attestationKeyAttributes & ~ObjectAttribute.restricted,
    fixedTPM: attestationKeyAttributes & ~ObjectAttribute.fixedTpm,
    fixedParent: attestationKeyAttributes & ~ObjectAttribute.fixedParent,
    sensitiveDataOrigin: attestationKeyAttributes & ~ObjectAttribute.sensitiveDataOrigin,
    sign: attestationKeyAttributes & ~ObjectAttribute.sign,
    decrypt: attestationKeyAttributes | ObjectAttribute.decrypt,
  };
  it.each(Object.entries(attributes))('a key with wrong attributes: %s', async (_, value) => {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey, attributes: value }), certificate);
    expect(await refused(attest(guest))).toEqual(['EV_AK_UNTRUSTED']);
  });

  it('what is no quote of exactly the 24 SHA-256 registers', async () => {
    const registers = Array.from({ length: 24 }, (_, index) => index);
    const quotes: [QuoteOptions, string][] = [
      [{ magic: 0x0054_4347 }, 'EV_SIGNATURE'],
      [{ type: 0x8017 }, 'EV_SIGNATURE'],
      [{ signer: otherEndorsementKey }, 'EV_SIGNATURE'],
      [{ registers: registers.slice(0, 23) }, 'EV_SIGNATURE'],
      [{ bank: Algorithm.sha384 }, 'EV_SIGNATURE'],
    ];
    for (const [options, code] of quotes)
      expect((await refused(attest(genuine, undefined, options)))[0], JSON.stringify(Object.keys(options))).toBe(code);
  });

  it('register values put at the place of others (position confusion)', async () => {
    // Registers 12 to 15 are all zeros: leave PCR 12 out of the selection, and the digest over the rest is not the claimed one.
    const selected = Array.from({ length: 24 }, (_, index) => index).filter((index) => index !== 12);
    expect(await refused(attest(genuine, undefined, { registers: selected }))).toContain('EV_SIGNATURE');
    const swapped = (evidence: TpmEvidence): TpmEvidence => {
      const [zero = '', one = '', ...rest] = evidence.tpm_quote.pcrs;
      return { ...evidence, tpm_quote: { ...evidence.tpm_quote, pcrs: [one, zero, ...rest] } };
    };
    expect((await refused(attest(genuine, swapped)))[0]).toBe('EV_SIGNATURE');
  });

  it('initdata that is not what was measured, that is kept back, or that was never measured', async () => {
    const now = session('initdata');
    const evidence = genuine.evidence(now, await genuine.activate(service, now.nonce));
    expect(await refused(evaluate(evidence, now, `${initdata}#`))).toEqual(['INITDATA_DIGEST']);
    const { initData: _kept, ...without } = toEvaluate(evidence, now, initdata);
    expect(await refused(service.evaluate({ evidences: [without], policyIds: [], correlationId: 'c' }))).toEqual([
      'INITDATA_DIGEST',
    ]);
    const none = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, { initdata: null });
    expect(statusOf(await attest(none))).toBe('contraindicated');
    const pretended = none.evidence(now, await none.activate(service, now.nonce));
    expect(await refused(evaluate(pretended, now, initdata))).toEqual(['INITDATA_DIGEST']);
  });

  it('a command line text that is not the measured one, or none', async () => {
    const told =
      (kernel_command_line: string) =>
      (evidence: TpmEvidence): TpmEvidence => ({ ...evidence, kernel_command_line });
    expect(new Set(await refused(attest(genuine, told('quiet'))))).toEqual(new Set(['EV_EVENTLOG_REPLAY']));
    expect(new Set(await refused(attest(genuine, told(`${genuine.machine.commandLine}\n\n`))))).toEqual(
      new Set(['EV_EVENTLOG_REPLAY']),
    );
    expect(await refused(attest(genuine, ({ kernel_command_line: _, ...rest }) => rest))).toEqual([
      'EV_EVENTLOG_REPLAY',
    ]);
  });
});

describe('event log', () => {
  const logOf =
    (events: readonly BootEvent[]) =>
    (evidence: TpmEvidence): TpmEvidence => ({ ...evidence, event_log: encodeLog(events).toString('base64') });
  const extra: BootEvent = { register: 12, type: EventType.EV_IPL, data: Buffer.from('extra') };

  it('G-20: any one event missing from the log', async () => {
    for (const [index, event] of genuine.events.entries()) {
      const codes = await refused(attest(genuine, logOf(genuine.events.toSpliced(index, 1))));
      expect(
        codes.some((code) => code === 'EV_EVENTLOG_REPLAY' || code === 'EV_EVENTLOG_UNKNOWN_EVENT'),
        `${index} PCR ${event.register}`,
      ).toBe(true);
      expect(codes[0]).toBe('EV_EVENTLOG_REPLAY');
    }
  });

  it('G-20: an additional event that was never measured, at any place', async () => {
    for (let index = 0; index <= genuine.events.length; index++) {
      const codes = await refused(attest(genuine, logOf(genuine.events.toSpliced(index, 0, extra))));
      expect(codes).toEqual(['EV_EVENTLOG_REPLAY', 'EV_EVENTLOG_UNKNOWN_EVENT']);
    }
    const silent: BootEvent = { register: 0, type: EventType.EV_NO_ACTION, data: Buffer.from('nobody extends this') };
    expect(await refused(attest(genuine, logOf([...genuine.events, silent])))).toEqual(['EV_EVENTLOG_UNKNOWN_EVENT']);
  });

  const additions: Record<string, BootEvent> = {
    'a further application': {
      register: 4,
      type: EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
      data: Buffer.from('path'),
      measured: Buffer.from('evil'),
    },
    'an application that returned': {
      register: 4,
      type: EventType.EV_EFI_ACTION,
      data: Buffer.from('Returning from EFI Application from Boot Option'),
    },
    'a further initrd': {
      register: 9,
      type: EventType.EV_EVENT_TAG,
      data: Buffer.from('ec223b8f0d0000004c696e757820696e6974726400', 'hex'),
      measured: Buffer.from('evil'),
    },
    'an overriding command line': { register: 12, type: EventType.EV_IPL, data: Buffer.from('cmdline') },
    'a second separator': { register: 2, type: EventType.EV_SEPARATOR, data: Buffer.alloc(4) },
    'a failed exit': {
      register: 5,
      type: EventType.EV_EFI_ACTION,
      data: Buffer.from('Exit Boot Services Returned with Failure'),
    },
    'a second application started by the firmware': {
      register: 4,
      type: EventType.EV_EFI_ACTION,
      data: Buffer.from('Calling EFI Application from Boot Option'),
    },
    'a phase of the boot after its end': { register: 11, type: EventType.EV_IPL, data: Buffer.from('enter-initrd') },
    'a lone section event': { register: 11, type: EventType.EV_IPL, data: Buffer.from('.dtb\0', 'utf16le') },
    'data that is not what was measured': {
      register: 7,
      type: EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
      data: Buffer.from('a'),
      measured: Buffer.from('b'),
    },
  };
  it.each(Object.entries(additions))(
    'G-20: an event that was measured but that nothing accounts for: %s',
    async (_, event) => {
      const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, {
        events: (events) => [...events, event],
      });
      expect((await refused(attest(guest)))[0]).toBe('EV_EVENTLOG_UNKNOWN_EVENT');
    },
  );

  it('G-20: initdata measured by somebody before the agent, with an event that says so', async () => {
    const event: BootEvent = { register: 8, type: EventType.EV_IPL, data: Buffer.from('initdata') };
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, {
      events: (events) => [...events, event],
    });
    const codes = await refused(attest(guest));
    expect(codes).toEqual(['EV_EVENTLOG_REPLAY', 'EV_EVENTLOG_UNKNOWN_EVENT', 'INITDATA_DIGEST']);
  });

  it.each(['.linux', '.cmdline', '.initrd'])(
    'G-20: section %s measured a second time, by another image',
    async (name) => {
      const data = Buffer.from(`${name}\0`, 'utf16le');
      const again = [Buffer.from(`${name}\0`), Buffer.from('evil')].map((measured) => ({
        register: 11,
        type: EventType.EV_IPL,
        data,
        measured,
      }));
      for (const where of [
        (events: BootEvent[]) => [...events, ...again],
        (events: BootEvent[]) => {
          const first = events.findIndex(({ register }) => register === 11);
          return events.toSpliced(first, 0, ...again);
        },
      ]) {
        const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate, { events: where });
        expect(await refused(attest(guest))).toContain('EV_EVENTLOG_UNKNOWN_EVENT');
      }
    },
  );

  it('G-20: an event without a SHA-256 digest, and a second Spec ID event', async () => {
    const log = encodeLog(genuine.events);
    const headerEnd = 32 + log.readUInt32LE(28);
    const header = log.subarray(0, headerEnd);
    // Two banks are declared: SHA-1 (0x0004, 20 bytes) beside SHA-256.
    const sha1 = Buffer.from([4, 0, 20, 0]);
    const both = Buffer.concat([header.subarray(0, -5), sha1, header.subarray(-5)]);
    both.writeUInt32LE(both.readUInt32LE(28) + sha1.length, 28);
    both.writeUInt32LE(2, 56);
    const event = Buffer.alloc(42);
    event.writeUInt32LE(5, 0);
    event.writeUInt32LE(EventType.EV_EFI_ACTION, 4);
    event.writeUInt32LE(1, 8);
    event.writeUInt16LE(Algorithm.sha1, 12);
    const withLog = (bytes: Buffer) => (evidence: TpmEvidence) => ({
      ...evidence,
      event_log: bytes.toString('base64'),
    });
    const rest = log.subarray(headerEnd);
    await expect(attest(genuine, withLog(Buffer.concat([both, rest])))).resolves.toBeDefined();
    const codes = await refused(attest(genuine, withLog(Buffer.concat([both, rest, event.subarray(0, 38)]))));
    expect(codes).toEqual(['EV_EVENTLOG_REPLAY', 'EV_EVENTLOG_UNKNOWN_EVENT']);
    expect(await refused(attest(genuine, withLog(Buffer.concat([header, log]))))).toEqual(['EV_FORMAT']);
  });

  it.each([8, 10, 12, 13, 14, 15, 16, 17, 23])('G-20: PCR %i extended without an event', async (register) => {
    const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), certificate);
    guest.tpm.extend(register, Buffer.alloc(32, 1));
    expect(await refused(attest(guest))).toEqual([register === 8 ? 'INITDATA_DIGEST' : 'EV_EVENTLOG_REPLAY']);
  });

  it('no log at all', async () => {
    expect(await refused(attest(genuine, ({ event_log: _, ...rest }) => rest))).toEqual(['EV_EVENTLOG_REPLAY']);
  });

  it('accepts the log of a booted pod VM, whose components are those predicted from its image', async () => {
    const vectors = new URL('testing/pod-vm-boot', import.meta.url).pathname;
    const tpm = new SoftwareTpm({ endorsementKey });
    const guest = new TestGuest(tpm, certificate, { initdata: null });
    const pcrs = JSON.parse(readFileSync(`${vectors}/pcrs.json`, 'utf8')) as string[];
    for (const [index, value] of pcrs.entries()) tpm.pcrs[index] = Buffer.from(value, 'hex');
    const real = (evidence: TpmEvidence): TpmEvidence => ({
      ...evidence,
      event_log: readFileSync(`${vectors}/event-log.bin`).toString('base64'),
      kernel_command_line: readFileSync(`${vectors}/command-line.txt`, 'utf8'),
    });
    const evaluation = await attest(guest, real);
    const { components } = claimsOf(evaluation) as { components: JsonObject };
    const predicted = JSON.parse(readFileSync(`${vectors}/reference-values.json`, 'utf8')) as {
      reference_values: Record<string, string[]>;
    };
    for (const [name, value] of Object.entries(components)) {
      expect(predicted.reference_values[`tpm_${name}`], name).toContain(value);
    }
    expect(Object.keys(components)).toEqual([
      'command_line',
      'firmware',
      'firmware_configuration',
      'initrd',
      'kernel',
      'loader',
      'root_hash',
    ]);
  });
});

describe('mutation', () => {
  it('a change of any byte of any part is refused, or changes nothing that is claimed', async () => {
    const now = session('mutated');
    const evidence = genuine.evidence(now, await genuine.activate(service, now.nonce));
    const honest = claimsOf(await evaluate(evidence, now));
    const parts = [
      'ak_public',
      'ak_public_area',
      'ek_certificate',
      'activated_secret',
      'event_log',
      'signature',
      'message',
    ] as const;
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...parts),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        async (part, position, flip) => {
          const flipped = (text: string): string => {
            const bytes = Buffer.from(text, 'base64');
            const at = position % bytes.length;
            bytes[at] = (bytes[at] ?? 0) ^ flip;
            return bytes.toString('base64');
          };
          const mutated: TpmEvidence =
            part === 'signature' || part === 'message'
              ? { ...evidence, tpm_quote: { ...evidence.tpm_quote, [part]: flipped(evidence.tpm_quote[part]) } }
              : { ...evidence, [part]: flipped(evidence[part] ?? '') };
          const outcome = await evaluate(mutated, now).catch((error: unknown) => error);
          if (outcome instanceof AttestationRefused) return;
          // Only data of events whose digest covers something else may change: it is not used for any claim.
          expect(part).toBe('event_log');
          expect(claimsOf(outcome as Evaluation)).toEqual(honest);
          accepted += 1;
        },
      ),
      { numRuns: 400 },
    );
    expect(accepted).toBeLessThan(40);
    for (let index = 0; index < 24; index++) {
      const pcrs = evidence.tpm_quote.pcrs.with(index, 'dd'.repeat(32));
      expect(await refused(evaluate({ ...evidence, tpm_quote: { ...evidence.tpm_quote, pcrs } }, now))).toContain(
        'EV_SIGNATURE',
      );
    }
  });

  it('malformed evidence is EV_FORMAT or REQUEST_TOO_LARGE in the verdict, never another error', async () => {
    const now = session('malformed');
    await fc.assert(
      fc.asyncProperty(fc.json(), async (text) => {
        const evidences = [{ ...toEvaluate({} as TpmEvidence, now, initdata), evidence: JSON.parse(text) }];
        expect(await refused(service.evaluate({ evidences, policyIds: [], correlationId: 'c' }))).toEqual([
          'EV_FORMAT',
        ]);
      }),
      { numRuns: 50 },
    );
  });
});

describe('challenge', () => {
  it('answers nothing to a guest without a proof to offer, and refuses malformed requests', async () => {
    expect(await service.challenge({ tee: 'tpm', tee_params: '' })).toBe('');
    for (const parameters of [
      '{',
      '{}',
      '{"nonce":"","ek-certificate":"","ak-public":""}',
      '{"nonce":"n","ek-certificate":"AA==","ak-public":"AA=="}',
    ]) {
      const thrown: unknown = await service
        .challenge({ tee: 'tpm', tee_params: parameters })
        .catch((error: unknown) => error);
      expect(['REQUEST_FORMAT', 'EV_FORMAT']).toContain((thrown as AttestationRefused).code);
    }
  });

  it('is checked by any replica on the same storage, and by none on another', async () => {
    const now = session('replica');
    const roots = [{ name: 'hardware', certificates: hardware.certificates, simulated: false }];
    const replica = await createAttestationService({ tpm: { roots } }, { storage });
    const evidence = genuine.evidence(now, await genuine.activate(replica, now.nonce));
    expect(statusOf(await evaluate(evidence, now))).toBeDefined();
    await replica.close();
    const elsewhere = await openStorage({ path: join(folder, 'elsewhere', 'db.sqlite') });
    const stranger = await createAttestationService({ tpm: { roots } }, { storage: elsewhere });
    expect(
      await refused(
        stranger.evaluate({ evidences: [toEvaluate(evidence, now, initdata)], policyIds: [], correlationId: 'c' }),
      ),
    ).toEqual(['EV_AK_UNTRUSTED']);
    await stranger.close();
    await elsewhere.close();
  });

  it('refuses an unusable configuration by name', async () => {
    const unusable = async (certificates: string): Promise<unknown> =>
      createAttestationService({ tpm: { roots: [{ name: 'bad', certificates, simulated: false }] } }, { storage });
    const [intermediateOnly = ''] = hardware.certificates.split(/(?<=END CERTIFICATE-----)/);
    for (const certificates of ['', 'x', intermediateOnly])
      await expect(unusable(certificates)).rejects.toMatchObject({ code: 'USAGE' });
  });
});

describe("upstream's evidence", () => {
  it('parses and verifies, but for its qualifying data, which are longer than upstream itself takes', async (context) => {
    const file = vectorPath('tpm/tpm_evidence.json');
    if (!existsSync(file)) context.skip(`no vector at ${file}`);
    const evidence = JSON.parse(readFileSync(file, 'utf8')) as TpmEvidence;
    const qualifying = Buffer.from(evidence.tpm_quote.message, 'base64').subarray(44, 44 + 64);
    const verifier = tpmVerifier({ roots: [] }, Buffer.alloc(32));
    const { verdict, claims } = await verifier.verify(evidence as unknown as JsonObject, {
      reportData: qualifying,
      trustedAttestationKeys: [],
      now: new Date(),
    });
    expect(failures(verdict).map(({ check }) => check)).toEqual(['nonce']);
    const zeros = '0'.repeat(64);
    expect(claims).toMatchObject({
      pcr00: zeros,
      pcr17: 'f'.repeat(64),
      ak_public: evidence.ak_public,
      ak_trust: 'self-asserted',
      report_data: qualifying.toString('hex'),
    });
  });
});
