import 'reflect-metadata';
import { spawn } from 'node:child_process';
import { createPrivateKey, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { credentials, makeClientConstructor, type ServiceError } from '@grpc/grpc-js';
import { SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import { AttestationService as AttestationServiceDescription } from '@sealpod/protocol/gen/coco/attestation_pb';
import { Health, HealthCheckResponse_ServingStatus } from '@sealpod/protocol/gen/grpc/health_v1_pb';
import { toGrpcServiceDefinition } from '@sealpod/protocol/grpc';
import type { JsonObject } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import { failures } from '@sealpod/protocol/verdict';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  AttestationRefused,
  type AttestationService,
  connectAttestationService,
  type EvidenceToEvaluate,
} from '../index.ts';
import { readMainConfig } from '../main-config.ts';
import { type RunningAttestationService, startAttestationService } from '../start.ts';

const secret = 'a secret of administrators';
const teePubKey = { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: 'x', y: 'y' } as const;
const sample: EvidenceToEvaluate = {
  tee: 'sample',
  evidence: {
    svn: '1',
    report_data: runtimeDataDigest({ nonce: 'n', teePubKey, additionalEvidence: '' }).toString('base64'),
  },
  runtimeData: { structured: { nonce: 'n', 'tee-pubkey': teePubKey, 'additional-evidence': '' } },
  initData: { toml: 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n' },
};
const bad: EvidenceToEvaluate = { ...sample, evidence: { svn: '1', report_data: 'AAAA' } };
const request = (evidence: EvidenceToEvaluate) => ({ evidences: [evidence], policyIds: [], correlationId: 'c-1' });

let folder: string;
let running: RunningAttestationService;
let administrator: AttestationService;
let anyone: AttestationService;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'attestation-grpc-'));
  running = await startAttestationService({
    storagePath: join(folder, 'state', 'db.sqlite'),
    service: { sample: true },
    grpc: { address: '127.0.0.1:0', adminSecret: secret },
    keys: { host: '127.0.0.1', port: 0 },
  });
  const jwks = async () =>
    (await fetch(`http://127.0.0.1:${running.keysPort}/.well-known/jwks.json`)).json() as Promise<{
      keys: JsonObject[];
    }>;
  administrator = connectAttestationService({ address: `127.0.0.1:${running.port}`, adminSecret: secret, jwks });
  anyone = connectAttestationService({ address: `127.0.0.1:${running.port}` });
});
afterAll(async () => {
  await administrator.close();
  await anyone.close();
  await running.close();
  await rm(folder, { recursive: true, force: true });
});

const thrownBy = async (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('evaluation over attestation.proto', () => {
  it('gives the token, and an administrator the whole explanation', async () => {
    const evaluation = await administrator.evaluate(request(sample));
    const { payload } = await jwtVerify(evaluation.token, createLocalJWKSet((await administrator.jwks()) as never));
    expect(payload.jti).toBe('c-1');
    expect(evaluation.claims.submods['cpu0']?.['ear.status']).toBe('contraindicated');
    expect(failures(evaluation.verdict).map(({ code }) => code)).toEqual([
      'RV_NOT_LOADED',
      'RV_NOT_LOADED',
      'POLICY_DENY',
    ]);
    expect(evaluation.policyVersions).toHaveProperty('default_cpu');
    expect(evaluation.referenceValueVersions).toEqual({ launch_digest: 0, svn: 0 });
  });
  it('gives anyone else the token, and no explanation', async () => {
    const evaluation = await anyone.evaluate(request(sample));
    expect(failures(evaluation.verdict)).toEqual([
      {
        check: 'cpu0',
        code: 'POLICY_DENY',
        expected: 'affirming',
        actual: 'contraindicated',
        source: 'policy default',
      },
    ]);
    expect(evaluation.policyVersions).toEqual({});
    await expect(anyone.jwks()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });
  it('carries refusals: the code to everyone, the verdict to an administrator', async () => {
    const refused = (await thrownBy(administrator.evaluate(request(bad)))) as AttestationRefused;
    expect(refused).toBeInstanceOf(AttestationRefused);
    expect(refused.code).toBe('EV_BINDING_MISMATCH');
    expect(failures(refused.verdict)[0]).toMatchObject({ check: 'report data', actual: '000000' });
    const brief = (await thrownBy(anyone.evaluate(request(bad)))) as AttestationRefused;
    expect(brief).toBeInstanceOf(AttestationRefused);
    expect(brief.code).toBe('EV_BINDING_MISMATCH');
    expect(JSON.stringify(brief.verdict)).not.toContain('000000');
  });
  it('passes raw runtime data, digests and hash algorithms', async () => {
    const raw: EvidenceToEvaluate = {
      tee: 'sample',
      evidence: { svn: '1', report_data: 'AQID' },
      runtimeData: { raw: Buffer.from([1, 2, 3]) },
      initData: { digest: Buffer.alloc(32, 9) },
    };
    const annotated = (await administrator.evaluate(request(raw))).claims.submods['cpu0']?.[
      'ear.veraison.annotated-evidence'
    ];
    expect(annotated).toMatchObject({
      report_data: 'AQID',
      init_data: Buffer.alloc(32, 9).toString('base64'),
      init_data_claims: null,
    });
    const sha256 = {
      ...sample,
      hashAlgorithm: 'sha256',
      evidence: {
        svn: '1',
        report_data: runtimeDataDigest({ nonce: 'n', teePubKey, additionalEvidence: '' }, 'sha256').toString('base64'),
      },
    } as const;
    await administrator.evaluate(request(sha256));
  });
  it('challenges: empty for a TEE without one', async () => {
    expect(await anyone.challenge({ tee: 'sample', tee_params: '' })).toBe('');
    await expect(anyone.challenge({ tee: 'sgx', tee_params: '' })).rejects.toMatchObject({
      code: 'EV_TEE_UNSUPPORTED',
    });
  });
});

describe('administration over the wire', () => {
  it('finding 7: is refused to whoever has not the secret', async () => {
    const wrong = connectAttestationService({ address: `127.0.0.1:${running.port}`, adminSecret: `${secret}.` });
    for (const client of [anyone, wrong]) {
      await expect(
        client.setPolicy('default_cpu', 'package policy\ntrust_claims := {"hardware": 2}'),
      ).rejects.toMatchObject({ code: 'ADMIN_TOKEN' });
      await expect(client.setReferenceValue('svn', ['1'])).rejects.toMatchObject({ code: 'ADMIN_TOKEN' });
      await expect(client.getReferenceValue('svn')).rejects.toMatchObject({ code: 'ADMIN_TOKEN' });
    }
    await wrong.close();
    expect(await administrator.getReferenceValue('svn')).toBeUndefined();
  });
  it('nobody else chooses the policy by which a token is affirming, also not one that came with the service', async () => {
    for (const policyIds of [['simulated-tpm'], ['default', 'simulated-tpm'], ['']]) {
      const chosen = { evidences: [sample], policyIds, correlationId: 'c' };
      await expect(anyone.evaluate(chosen), policyIds.join()).rejects.toMatchObject({ code: 'ADMIN_TOKEN' });
    }
    await anyone.evaluate({ evidences: [sample], policyIds: ['default'], correlationId: 'c' });
  });
  it('sets policies and reference values; what the wire lacks is unsupported', async () => {
    await administrator.setReferenceValue('minimum', [1]);
    expect(await administrator.getReferenceValue('minimum')).toMatchObject({ value: [1] });
    await expect(administrator.setPolicy('x_cpu', 'package')).rejects.toMatchObject({ code: 'POLICY_INVALID' });
    await administrator.setPolicy('x_cpu', 'package policy\nimport rego.v1\ntrust_claims := {"hardware": 2}');
    const { claims } = await administrator.evaluate({ evidences: [sample], policyIds: ['x'], correlationId: 'c' });
    expect(claims.submods['cpu0']?.['ear.status']).toBe('affirming');
    for (const call of [
      administrator.listPolicies(),
      administrator.getPolicy('x_cpu'),
      administrator.deletePolicy('x_cpu'),
      administrator.setReferenceValue('a', [1], { scope: 'team' }),
      administrator.deleteReferenceValue('a', { scope: 'team' }),
    ]) {
      await expect(call).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    }
  });
  it('lists and deletes reference values, and records who registered them', async () => {
    await administrator.setReferenceValue('listed', ['1']);
    const listed = (await administrator.listReferenceValues()).find(({ id }) => id === 'listed');
    expect(listed).toMatchObject({
      value: ['1'],
      provenance: { kind: 'administrator', subject: 'holder of the admin secret' },
    });
    expect(await administrator.deleteReferenceValue('listed')).toBe(true);
    expect(await administrator.deleteReferenceValue('listed')).toBe(false);
    expect((await administrator.listReferenceValues()).map(({ id }) => id)).not.toContain('listed');
    await expect(anyone.listReferenceValues()).rejects.toMatchObject({ code: 'ADMIN_TOKEN' });
    await expect(anyone.deleteReferenceValue('svn')).rejects.toMatchObject({ code: 'ADMIN_TOKEN' });
  });
});

describe('the wire itself', () => {
  const call = (
    service: Parameters<typeof toGrpcServiceDefinition>[0],
    method: string,
    message: unknown,
  ): Promise<unknown> => {
    const client = new (makeClientConstructor(toGrpcServiceDefinition(service), service.name))(
      `127.0.0.1:${running.port}`,
      credentials.createInsecure(),
    );
    return new Promise((resolve, reject) => {
      (
        client as unknown as Record<
          string,
          (m: unknown, done: (error: ServiceError | null, answer: unknown) => void) => void
        >
      )[method]?.(message, (error, answer) => {
        client.close();
        if (error === null) resolve(answer);
        else reject(error);
      });
    });
  };
  it('answers grpc.health.v1', async () => {
    expect(await call(Health, 'check', { $typeName: 'grpc.health.v1.HealthCheckRequest', service: '' })).toMatchObject({
      status: HealthCheckResponse_ServingStatus.SERVING,
    });
  });
  it('ABORTED with text for malformed requests, as upstream', async () => {
    const one = {
      $typeName: 'attestation.IndividualAttestationRequest',
      tee: 'sample',
      evidence: '!',
      runtimeData: { case: undefined },
      initData: { case: undefined },
      runtimeDataHashAlgorithm: '',
    };
    const failure = (requests: unknown[]) =>
      thrownBy(
        call(AttestationServiceDescription, 'attestationEvaluate', {
          $typeName: 'attestation.AttestationRequest',
          verificationRequests: requests,
          policyIds: [],
        }),
      );
    expect(await failure([one])).toMatchObject({ code: 10 });
    expect(await failure([{ ...one, evidence: 'e30', runtimeDataHashAlgorithm: 'md5' }])).toMatchObject({ code: 10 });
    expect(await failure([])).toMatchObject({ code: 10 });
  });
  it('is NETWORK where nobody answers', async () => {
    const nobody = connectAttestationService({ address: '127.0.0.1:1', timeoutMs: 2000 });
    await expect(nobody.challenge({ tee: 'sample' })).rejects.toMatchObject({ code: 'NETWORK' });
    await nobody.close();
  });
  it('the key server serves two paths and nothing else', async () => {
    const at = (path: string, init?: RequestInit) =>
      fetch(`http://127.0.0.1:${running.keysPort}${path}`, init).then(({ status }) => status);
    expect([
      await at('/healthz'),
      await at('/.well-known/jwks.json'),
      await at('/'),
      await at('/healthz', { method: 'POST' }),
    ]).toEqual([200, 200, 404, 405]);
  });
});

/** `<name>.pem` and `<name>.key`: a self-signed certificate for 127.0.0.1. */
async function writeIdentity(name: string): Promise<void> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
    extensions: [new SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }])],
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  writeFileSync(join(folder, `${name}.pem`), certificate.toString('pem'));
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  writeFileSync(join(folder, `${name}.key`), key.export({ format: 'pem', type: 'pkcs8' }));
}

describe('exposure and configuration', () => {
  const service = { sample: true };
  const start = (grpc: object) =>
    startAttestationService({
      storagePath: join(folder, 'other', 'db.sqlite'),
      service,
      grpc: { address: '127.0.0.1:0', ...grpc },
    });

  it('listens beyond loopback with TLS only, and never openly administered', async () => {
    await expect(start({ address: '0.0.0.0:0' })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(
      start({ address: '0.0.0.0:0', tls: { certificate: '', key: '' }, openAdministration: true }),
    ).rejects.toMatchObject({ code: 'USAGE' });
    await expect(start({ adminSecret: 'short' })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('with client certificates, only who has one is heard', async () => {
    for (const name of ['server', 'client', 'stranger']) await writeIdentity(name);
    const configuration = join(folder, 'tls.json');
    writeFileSync(
      configuration,
      JSON.stringify({
        storage: 'tls/db.sqlite',
        listen: '127.0.0.1:0',
        sample: true,
        tls: { certificateFile: 'server.pem', keyFile: 'server.key', clientAuthoritiesFile: 'client.pem' },
      }),
    );
    const config = readMainConfig(configuration);
    const secured = await startAttestationService(config);
    const read = (file: string): string => readFileSync(join(folder, file), 'utf8');
    const connect = (client?: { certificate: string; key: string }) =>
      connectAttestationService({
        address: `127.0.0.1:${secured.port}`,
        timeoutMs: 3000,
        tls: { certificates: read('server.pem'), ...(client === undefined ? {} : { client }) },
      });
    const known = connect({ certificate: read('client.pem'), key: read('client.key') });
    expect((await known.evaluate(request(sample))).policyVersions).toHaveProperty('default_cpu');
    await known.setReferenceValue('svn', ['1']);
    await known.close();
    for (const stranger of [connect(), connect({ certificate: read('stranger.pem'), key: read('stranger.key') })]) {
      await expect(stranger.challenge({ tee: 'sample' })).rejects.toMatchObject({ code: 'NETWORK' });
      await stranger.close();
    }
    await secured.close();
  });

  it('as a program: says that it is ready, ends on SIGTERM, and exits 2 for a configuration it cannot use', async () => {
    mkdirSync(join(folder, 'program'));
    const configuration = join(folder, 'program', 'config.json');
    const program = (...args: string[]) =>
      spawn(process.execPath, [new URL('../main.ts', import.meta.url).pathname, ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    writeFileSync(join(folder, 'program', 'secret'), `${secret}\n`);
    chmodSync(join(folder, 'program', 'secret'), 0o600);
    writeFileSync(
      configuration,
      JSON.stringify({
        storage: 'state/db.sqlite',
        listen: '127.0.0.1:0',
        jwks: { host: '127.0.0.1', port: 0 },
        sample: true,
        adminSecretFile: 'secret',
        token: { lifetimeSeconds: 60 },
      }),
    );
    const child = program('--config', configuration);
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const { port } = JSON.parse(line.toString()) as { port: number };
    const client = connectAttestationService({ address: `127.0.0.1:${port}`, adminSecret: secret });
    const { claims } = await client.evaluate(request(sample));
    expect(claims.exp - claims.iat).toBe(60);
    await client.close();
    child.kill('SIGTERM');
    expect((await once(child, 'exit'))[0]).toBe(0);

    const refusals: [string, string][] = [
      ['{', 'malformed'],
      ['{"storage":"s","listen":"127.0.0.1:0","unknown":1}', 'unknown member'],
      ['{"storage":"s"}', 'listen'],
      [
        '{"storage":"s","listen":"127.0.0.1:0","tpm":{"roots":[{"name":"a","certificatesFile":"absent","simulated":true}]}}',
        'cannot read',
      ],
      ['{"storage":"s","listen":"0.0.0.0:0"}', 'loopback'],
    ];
    for (const [text, said] of refusals) {
      writeFileSync(configuration, text);
      expect(() => readMainConfig(configuration), text).toThrow(said);
    }
    const refusedProgram = program('--config', configuration);
    let output = '';
    refusedProgram.stderr.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    expect((await once(refusedProgram, 'close'))[0]).toBe(2);
    expect(output).toContain('loopback');
    chmodSync(join(folder, 'program', 'secret'), 0o644);
    writeFileSync(configuration, '{"storage":"s","listen":"127.0.0.1:0","adminSecretFile":"secret"}');
    expect(() => readMainConfig(configuration)).toThrow('others can read');
  });
});
