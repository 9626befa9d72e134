import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import { failures } from '@sealpod/protocol/verdict';
import { checkLogChain, openStorage, type Storage } from '@sealpod/storage';
import fc from 'fast-check';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { type AttestationService, createAttestationService } from '../index.ts';
import { openSigners, type ReferenceValuesConfig } from './config.ts';
import { openEnvelope, preAuthenticationEncoding } from './dsse.ts';
import { inTotoPayloadType, referenceValuesPredicate } from './statement.ts';
import { referenceValueLog } from './store.ts';
import type { ReferenceValueWorkflow } from './workflow.ts';

const folder = await mkdtemp(join(tmpdir(), 'reference-values-'));
const opened: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const close of opened) await close();
  await rm(folder, { recursive: true, force: true });
});

let now = new Date('2026-06-01T00:00:00Z');
let storage: Storage;
let service: AttestationService;
let number = 0;
async function open(referenceValues: ReferenceValuesConfig = {}, keep = false): Promise<void> {
  if (!keep) {
    number += 1;
    storage = await openStorage({ path: join(folder, `${number}`, 'db.sqlite'), now: () => now.getTime() });
    opened.push(storage.close.bind(storage));
  }
  service = await createAttestationService({ sample: true, referenceValues, now: () => now }, { storage });
  opened.unshift(service.close.bind(service));
}
beforeEach(() => {
  now = new Date('2026-06-01T00:00:00Z');
});

const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString();
const keys = {
  ed25519: generateKeyPairSync('ed25519'),
  p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  p384: generateKeyPairSync('ec', { namedCurve: 'P-384' }),
};
type KeyName = keyof typeof keys;
const signers = (...names: KeyName[]) => names.map((name) => ({ name, publicKey: pem(keys[name].publicKey) }));

const statementOf = (predicate: JsonObject = {}, changes: JsonObject = {}): JsonObject => ({
  _type: 'https://in-toto.io/Statement/v1',
  subject: [{ name: 'pod-vm', digest: { sha256: 'ab'.repeat(32) } }],
  predicateType: referenceValuesPredicate,
  predicate: { referenceValues: { launch_digest: ['abcde'] }, issuedAt: '2026-05-01T00:00:00Z', ...predicate },
  ...changes,
});

function signatureBy(name: KeyName, signed: Buffer): string {
  const { privateKey } = keys[name];
  const hash = { ed25519: null, p256: 'sha256', p384: 'sha384' }[name];
  return sign(hash, signed, privateKey).toString('base64');
}

function envelope(statement: JsonValue, names: readonly KeyName[], payloadType = inTotoPayloadType): JsonObject {
  const payload = Buffer.from(JSON.stringify(statement));
  const signed = preAuthenticationEncoding(payloadType, payload);
  return {
    payloadType,
    payload: payload.toString('base64'),
    signatures: names.map((name) => ({ keyid: 'any', sig: signatureBy(name, signed) })),
  };
}

const message = (type: string, payload: string | JsonValue): string =>
  JSON.stringify({
    version: '0.1.0',
    type,
    payload: Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload)).toString('base64'),
  });
const dsse = (content: JsonObject): Promise<void> => service.registerReferenceValues(message('dsse', content));
const code = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'OK',
    (error: { code: string }) => error.code,
  );

const administrator = (key: string) => ({ subject: `admin ${key}`, key });
const teePubKey = { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: 'x', y: 'y' } as const;
const evaluate = async (policy = 'default') => {
  const report = runtimeDataDigest({ nonce: 'n', teePubKey, additionalEvidence: '' }).toString('base64');
  const { claims, verdict } = await service.evaluate({
    evidences: [
      {
        tee: 'sample',
        evidence: { svn: '1', report_data: report },
        runtimeData: { structured: { nonce: 'n', 'tee-pubkey': teePubKey, 'additional-evidence': '' } },
      },
    ],
    policyIds: [policy],
    correlationId: 'guest-1',
  });
  return {
    executables: claims.submods['cpu0']?.['ear.trustworthiness-vector'].executables,
    reasons: failures(verdict).map(({ check, code: reason }) => `${reason} ${check}`),
  };
};

describe('G-11: unsigned messages', () => {
  it('are refused unless an administrator stands for them or a switch accepts them', async () => {
    await open();
    const text = message('sample', { launch_digest: ['abcde'] });
    expect(await code(service.registerReferenceValues(text))).toBe('RV_UNSIGNED');
    expect(await service.listReferenceValues()).toEqual([]);
    await service.registerReferenceValues(text, administrator('a'));
    expect(await service.getReferenceValue('launch_digest')).toMatchObject({
      value: ['abcde'],
      provenance: { kind: 'administrator', subject: 'admin a', key: 'a' },
    });
  });

  it('that a switch let in are not used once it is off, and the reason says so', async () => {
    await open({ acceptUnsigned: true });
    await service.registerReferenceValues(message('sample', { launch_digest: ['abcde'] }));
    expect((await evaluate()).executables).toBe(3);
    await open({}, true);
    const { executables, reasons } = await evaluate();
    expect(executables).toBe(33);
    expect(reasons).toContain('RV_UNSIGNED launch_digest');
  });
});

describe('signed statements', () => {
  it.each(['ed25519', 'p256', 'p384'] as const)(
    'of an enrolled %s key are registered with who signed them',
    async (name) => {
      await open({ signers: signers(name) });
      await dsse(envelope(statementOf(), [name]));
      expect((await evaluate()).executables).toBe(3);
      expect(await service.getReferenceValue('launch_digest')).toMatchObject({
        expiresAt: '2027-05-01T00:00:00.000Z',
        provenance: { kind: 'signed', format: 'dsse', signers: [name], issuedAt: '2026-05-01T00:00:00.000Z' },
      });
    },
  );

  it('are refused with every byte of payload, type and signature changed', async () => {
    const enrolled = openSigners({ signers: signers('ed25519') });
    const genuine = envelope(statementOf(), ['ed25519']);
    const opensFor = (content: JsonObject): number =>
      openEnvelope(Buffer.from(JSON.stringify(content)), enrolled).signers.length;
    expect(opensFor(genuine)).toBe(1);
    const payload = Buffer.from(String(genuine['payload']), 'base64');
    for (let at = 0; at < payload.length; at += 1) {
      const other = Buffer.from(payload);
      other[at] = (other[at] ?? 0) ^ 1;
      expect(opensFor({ ...genuine, payload: other.toString('base64') }), `payload byte ${at}`).toBe(0);
    }
    const [{ sig } = { sig: '' }] = genuine['signatures'] as unknown as [{ sig: string }];
    const signature = Buffer.from(sig, 'base64');
    for (let at = 0; at < signature.length; at += 1) {
      const other = Buffer.from(signature);
      other[at] = (other[at] ?? 0) ^ 1;
      expect(opensFor({ ...genuine, signatures: [{ sig: other.toString('base64') }] }), `signature byte ${at}`).toBe(0);
    }
    expect(opensFor({ ...genuine, payloadType: `${inTotoPayloadType}2` })).toBe(0);
  });

  it.each([
    ['by nobody who is enrolled', envelope(statementOf(), ['p256']), 'RV_SIGNATURE'],
    ['without signatures', { ...envelope(statementOf(), []), signatures: [] }, 'REQUEST_FORMAT'],
    ['of another payload type', envelope(statementOf(), ['ed25519'], 'text/plain'), 'UNSUPPORTED'],
    [
      'of another predicate',
      envelope(statementOf({}, { predicateType: 'https://slsa.dev/provenance/v1' }), ['ed25519']),
      'UNSUPPORTED',
    ],
    ['of another type', envelope(statementOf({}, { _type: 'x' }), ['ed25519']), 'UNSUPPORTED'],
    ['about nothing', envelope(statementOf({}, { subject: [] }), ['ed25519']), 'REQUEST_FORMAT'],
    [
      'about something without digest',
      envelope(statementOf({}, { subject: [{ name: 'x', digest: {} }] }), ['ed25519']),
      'REQUEST_FORMAT',
    ],
    ['without values', envelope(statementOf({ referenceValues: {} }), ['ed25519']), 'REQUEST_FORMAT'],
    ['with a bad id', envelope(statementOf({ referenceValues: { '../x': 1 } }), ['ed25519']), 'REQUEST_FORMAT'],
    ['with an unknown member', envelope(statementOf({ expires: 'never' }), ['ed25519']), 'REQUEST_FORMAT'],
    ['without date', envelope(statementOf({ issuedAt: 'soon' }), ['ed25519']), 'REQUEST_FORMAT'],
    ['from the future', envelope(statementOf({ issuedAt: '2026-06-02T00:00:00Z' }), ['ed25519']), 'REQUEST_FORMAT'],
    ['whose time is over', envelope(statementOf({ expiresAt: '2026-05-31T00:00:00Z' }), ['ed25519']), 'RV_EXPIRED'],
    ['of more than a year ago', envelope(statementOf({ issuedAt: '2025-05-01T00:00:00Z' }), ['ed25519']), 'RV_EXPIRED'],
  ])('%s are refused', async (_what, content, expected) => {
    await open({ signers: signers('ed25519') });
    expect(await code(dsse(content as JsonObject))).toBe(expected);
    expect(await service.listReferenceValues()).toEqual([]);
  });

  it('need as many different signers as configured, each within what it may speak for', async () => {
    await open({ signers: signers('ed25519', 'p256'), requiredSignatures: 2 });
    expect(await code(dsse(envelope(statementOf(), ['ed25519'])))).toBe('RV_SIGNATURE');
    expect(await code(dsse(envelope(statementOf(), ['ed25519', 'ed25519'])))).toBe('RV_SIGNATURE');
    await dsse(envelope(statementOf(), ['ed25519', 'p256']));
    await open({ signers: signers('ed25519').map((signer) => ({ ...signer, ids: ['tpm_*', 'svn'] })) });
    expect(await code(dsse(envelope(statementOf(), ['ed25519'])))).toBe('RV_SIGNATURE');
    await dsse(envelope(statementOf({ referenceValues: { svn: ['1'], tpm_kernel: ['a'] } }), ['ed25519']));
    expect(await code(dsse(envelope(statementOf({ referenceValues: { svn2: 1 } }), ['ed25519'])))).toBe('RV_SIGNATURE');
  });

  it('never replace a newer one, also not after that was deleted', async () => {
    await open({ signers: signers('ed25519') });
    const older = envelope(statementOf(), ['ed25519']);
    const newer = envelope(
      statementOf({ referenceValues: { launch_digest: ['new'] }, issuedAt: '2026-05-02T00:00:00Z' }),
      ['ed25519'],
    );
    await dsse(older);
    await dsse(newer);
    await dsse(newer);
    expect(await code(dsse(older))).toBe('RV_SUPERSEDED');
    await service.deleteReferenceValue('launch_digest');
    expect(await code(dsse(older))).toBe('RV_SUPERSEDED');
    expect(await service.getReferenceValue('launch_digest')).toBeUndefined();
  });

  it('may be for one policy', async () => {
    await open({ signers: signers('ed25519') });
    await dsse(envelope(statementOf({ scope: 'simulated-tpm' }), ['ed25519']));
    expect(await service.getReferenceValue('launch_digest')).toBeUndefined();
    expect(await service.getReferenceValue('launch_digest', 'simulated-tpm')).toMatchObject({ scope: 'simulated-tpm' });
  });

  it('whatever is sent instead of an envelope is a typed refusal', async () => {
    await open({ signers: signers('ed25519') });
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (text) => {
        const refused = await code(service.registerReferenceValues(message('dsse', text)));
        expect(['REQUEST_FORMAT', 'UNSUPPORTED', 'RV_SIGNATURE']).toContain(refused);
      }),
      { numRuns: 100 },
    );
  });

  it('signers are configured with public keys of known kinds, once each', () => {
    const bad = (config: ReferenceValuesConfig): void => void openSigners(config);
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey;
    const [one] = signers('ed25519');
    expect(() => bad({ signers: [{ name: 'x', publicKey: 'x' }] })).toThrow(/cannot be read/);
    expect(() => bad({ signers: [{ name: 'x', publicKey: pem(rsa) }] })).toThrow(/another kind/);
    const secret = keys.ed25519.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    expect(() => bad({ signers: [{ name: 'x', publicKey: secret }] })).toThrow(/cannot be read/);
    expect(() => bad({ signers: one === undefined ? [] : [one, { ...one, name: 'y' }] })).toThrow(
      /one name or one key/,
    );
    expect(() => bad({ signers: signers('p256'), requiredSignatures: 2 })).toThrow(/more signatures/);
  });
});

describe('scopes', () => {
  it('a value of a policy comes before that of all, also when it has expired', async () => {
    await open();
    await service.setReferenceValue('launch_digest', ['abcde']);
    expect((await evaluate()).executables).toBe(3);
    await service.setReferenceValue('launch_digest', ['other'], { scope: 'default' });
    expect(await evaluate()).toMatchObject({ executables: 33 });
    await service.setReferenceValue('launch_digest', ['abcde'], {
      scope: 'default',
      expiresAt: '2026-05-01T00:00:00Z',
    });
    const { executables, reasons } = await evaluate();
    expect(executables).toBe(33);
    expect(reasons).toContain('RV_EXPIRED launch_digest');
    expect((await evaluate('trustee')).executables).toBe(3);
    expect(await service.deleteReferenceValue('launch_digest', { scope: 'default' })).toBe(true);
    expect((await evaluate()).executables).toBe(3);
    expect(await code(service.setReferenceValue('a', 1, { scope: '../x' }))).toBe('REQUEST_FORMAT');
  });
});

describe('learn, diff, approve, promote, retire', () => {
  const workflow = (): ReferenceValueWorkflow => {
    if (service.referenceValueWorkflow === undefined) throw new Error('no workflow');
    return service.referenceValueWorkflow;
  };
  const values = { launch_digest: ['abcde'] };

  it('each state has its reason, and each step its record', async () => {
    await open({ approvals: 2 });
    expect((await evaluate()).reasons).toContain('RV_NOT_LOADED launch_digest');
    const { id } = await workflow().learn({ values, source: 'test' }, administrator('a'));
    expect((await evaluate()).reasons).toContain('RV_QUARANTINED launch_digest');
    expect(await code(workflow().promote(id, administrator('a')))).toBe('RV_QUARANTINED');
    expect(await workflow().approve(id, administrator('a'))).toMatchObject({ state: 'quarantined' });
    // The same key under another name is the same administrator.
    await workflow().approve(id, { subject: 'somebody else', key: 'a' });
    expect((await workflow().review(id)).approvals).toEqual({ have: 1, need: 2 });
    expect(await code(workflow().promote(id, administrator('b')))).toBe('RV_QUARANTINED');
    expect(await workflow().approve(id, administrator('b'))).toMatchObject({ state: 'approved' });
    expect((await evaluate()).executables).toBe(33);
    await workflow().promote(id, administrator('c'));
    expect((await evaluate()).executables).toBe(3);
    expect(await service.getReferenceValue('launch_digest')).toMatchObject({
      provenance: { kind: 'promoted', candidate: id, approvals: [{ by: { key: 'a' } }, { by: { key: 'b' } }] },
    });
    expect(await code(workflow().promote(id, administrator('c')))).toBe('STORAGE_CONFLICT');
    expect(await code(workflow().approve(id, administrator('c')))).toBe('STORAGE_CONFLICT');
    await workflow().retire(id, administrator('c'));
    expect(await evaluate()).toMatchObject({ executables: 33 });
    expect((await evaluate()).reasons).toContain('RV_RETIRED launch_digest');
    expect(await code(workflow().retire(id, administrator('c')))).toBe('STORAGE_CONFLICT');
    const log = await storage.read(referenceValueLog);
    const chain = await checkLogChain(storage, referenceValueLog);
    expect([chain.records, chain.brokenAt]).toEqual([6, undefined]);
    const steps = log.map(
      ({ value }) => JSON.parse(value) as { action: string; by: { key: string }; candidate: string },
    );
    expect(steps.map(({ action, by }) => `${action} ${by.key}`)).toEqual([
      'learn a',
      'approve a',
      'approve a',
      'approve b',
      'promote c',
      'retire c',
    ]);
    expect(steps.every(({ candidate }) => candidate === id)).toBe(true);
  });

  it('with several approvals nobody registers a value alone, but deletes', async () => {
    await open();
    await service.setReferenceValue('svn', ['1'], { administrator: administrator('a') });
    await open({ approvals: 2 }, true);
    expect(await code(service.setReferenceValue('svn', ['2'], { administrator: administrator('a') }))).toBe(
      'RV_QUARANTINED',
    );
    const sample = message('sample', { svn: ['2'] });
    expect(await code(service.registerReferenceValues(sample, administrator('a')))).toBe('RV_QUARANTINED');
    expect(await service.getReferenceValue('svn')).toMatchObject({ value: ['1'] });
    expect(await service.deleteReferenceValue('svn', { administrator: administrator('a') })).toBe(true);
  });

  it('promoting adds to lists or replaces; retiring takes away what only this one brought', async () => {
    await open();
    const [a, b, c] = [administrator('a'), administrator('b'), administrator('c')];
    await service.setReferenceValue('launch_digest', ['old', 'abcde']);
    const first = await workflow().learn({ values: { launch_digest: ['abcde', 'new'], svn: ['1'] } }, a);
    expect((await workflow().review(first.id)).differences).toEqual([
      {
        id: 'launch_digest',
        change: 'changed',
        current: ['old', 'abcde'],
        learned: ['abcde', 'new'],
        added: ['new'],
        missing: ['old'],
      },
      { id: 'svn', change: 'new', learned: ['1'], added: ['1'], missing: [] },
    ]);
    const second = await workflow().learn({ values: { launch_digest: ['new', 'newer'] } }, a);
    for (const { id } of [first, second]) {
      await workflow().approve(id, b);
      await workflow().promote(id, c);
    }
    const digests = async () => (await service.getReferenceValue('launch_digest'))?.value;
    expect(await digests()).toEqual(['old', 'abcde', 'new', 'newer']);
    await workflow().retire(first.id, c);
    expect(await digests()).toEqual(['old', 'abcde', 'new', 'newer']);
    expect(await service.getReferenceValue('svn')).toBeUndefined();
    await workflow().retire(second.id, c);
    expect(await digests()).toEqual(['old', 'abcde', 'new']);
    const third = await workflow().learn({ values: { launch_digest: ['only'] } }, a);
    await workflow().approve(third.id, b);
    await workflow().promote(third.id, c, 'replace');
    expect(await digests()).toEqual(['only']);
  });

  it('adds to nothing that has expired or that nobody stands for, and lets nothing outlive its time', async () => {
    await open({ acceptUnsigned: true });
    await service.registerReferenceValues(message('sample', { launch_digest: ['unsigned'] }));
    await service.setReferenceValue('svn', ['expired'], { expiresAt: '2026-05-01T00:00:00Z' });
    await service.setReferenceValue('kernel', ['old'], { expiresAt: '2026-07-01T00:00:00Z' });
    const promote = async (learned: JsonObject, expiresAt: string, mode: 'add' | 'replace' = 'add') => {
      const { id } = await workflow().learn({ values: learned, expiresAt }, administrator('a'));
      await workflow().approve(id, administrator('a'));
      await workflow().promote(id, administrator('a'), mode);
    };
    await promote({ launch_digest: ['new'], svn: ['new'], kernel: ['new'] }, '2026-08-01T00:00:00Z');
    const stored = async (id: string) => {
      const { value, expiresAt, provenance } = (await service.getReferenceValue(id)) ?? {};
      return [value, expiresAt, provenance?.kind];
    };
    expect(await stored('launch_digest')).toEqual([['new'], '2026-08-01T00:00:00.000Z', 'promoted']);
    expect(await stored('svn')).toEqual([['new'], '2026-08-01T00:00:00.000Z', 'promoted']);
    expect(await stored('kernel')).toEqual([['old', 'new'], '2026-07-01T00:00:00.000Z', 'promoted']);
    await promote({ kernel: ['new'] }, '2026-08-01T00:00:00Z', 'replace');
    expect(await stored('kernel')).toEqual([['new'], '2026-08-01T00:00:00.000Z', 'promoted']);
  });

  it('learns what verified evidence was measured to be', async () => {
    await open();
    expect(await code(workflow().learn({ evidence: { tee: 'sample' } }, administrator('a')))).toBe('NOT_FOUND');
    await evaluate();
    const learned = await workflow().learn({ evidence: { correlationId: 'guest-1' } }, administrator('a'));
    expect(learned).toMatchObject({
      values: { launch_digest: ['abcde'], svn: ['1'], major_version: 1, minimum_minor_version: 4 },
      origin: { kind: 'evidence', tee: 'sample', correlationId: 'guest-1' },
    });
    await workflow().approve(learned.id, administrator('a'));
    await workflow().promote(learned.id, administrator('a'));
    expect((await evaluate()).reasons).toEqual([]);
    expect(await code(workflow().learn({ evidence: { tee: 'snp' } }, administrator('a')))).toBe('NOT_FOUND');
    expect(await service.recentClaims?.()).toHaveLength(1);
  });

  it.each([
    [{}, 'REQUEST_FORMAT'],
    [{ values, evidence: { tee: 'sample' } }, 'REQUEST_FORMAT'],
    [{ values: {} }, 'REQUEST_FORMAT'],
    [{ values: { '../x': 1 } }, 'REQUEST_FORMAT'],
    [{ values, scope: 'a b' }, 'REQUEST_FORMAT'],
    [{ values, expiresAt: 'tomorrow' }, 'REQUEST_FORMAT'],
    [{ values: { a: 'x'.repeat(300_000) } }, 'REQUEST_TOO_LARGE'],
  ])('refuses to learn %j', async (request, expected) => {
    await open();
    expect(await code(workflow().learn(request, administrator('a')))).toBe(expected);
    expect(await workflow().list()).toEqual([]);
  });

  it('does not promote what has expired meanwhile, and keeps the expiry', async () => {
    await open();
    const { id } = await workflow().learn({ values, expiresAt: '2026-07-01T00:00:00Z' }, administrator('a'));
    const late = await workflow().learn({ values, expiresAt: '2026-06-02T00:00:00Z' }, administrator('a'));
    await workflow().approve(id, administrator('a'));
    await workflow().approve(late.id, administrator('a'));
    now = new Date('2026-06-03T00:00:00Z');
    expect(await code(workflow().promote(late.id, administrator('a')))).toBe('RV_EXPIRED');
    await workflow().promote(id, administrator('a'));
    expect((await evaluate()).executables).toBe(3);
    now = new Date('2026-07-02T00:00:00Z');
    expect((await evaluate()).reasons).toContain('RV_EXPIRED launch_digest');
  });

  it('a candidate that was altered in storage is refused', async () => {
    await open();
    const { id } = await workflow().learn({ values }, administrator('a'));
    const entry = await storage.get('reference-value-candidate', id);
    const text = Buffer.from(entry?.value ?? [])
      .toString()
      .replace('abcde', 'evil!');
    await storage.put('reference-value-candidate', id, text);
    expect(await code(workflow().approve(id, administrator('a')))).toBe('STORAGE');
  });

  it('steps on a candidate that is not there are refused', async () => {
    await open();
    for (const step of [
      workflow().review('absent'),
      workflow().approve('absent', administrator('a')),
      workflow().promote('absent', administrator('a')),
      workflow().retire('absent', administrator('a')),
    ])
      expect(await code(step)).toBe('NOT_FOUND');
  });
});

describe('mismatches', () => {
  it('name the component, what is accepted and what was measured', async () => {
    await open();
    await service.setReferenceValue('launch_digest', ['fedcb']);
    expect((await evaluate()).reasons).toContain('RV_MISMATCH launch_digest');
  });
});
