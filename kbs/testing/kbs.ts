import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { type AdminRole, signAdminToken } from '@sealpod/kbs-client/token';
import type { JsonObject } from '@sealpod/protocol/json';
import { pino } from 'pino';
import { parseKbsConfig } from '../config.ts';
import { createKbs, type Kbs, type KbsDependencies } from '../kbs.ts';
import { type Call, call, type Reply } from './client.ts';
import { FakeAttestationService } from './fake-attestation-service.ts';

export interface TestKbs extends Kbs {
  readonly directory: string;
  readonly attestation: FakeAttestationService;
  /** All log lines so far. */
  readonly log: () => string;
  readonly token: (role?: AdminRole) => Promise<string>;
  /** A request with an administrator's token. */
  readonly admin: (target: string, options?: Call & { readonly role?: AdminRole }) => Promise<Reply>;
  /** Stops it and starts another one on the same data. */
  readonly restart: () => Promise<TestKbs>;
  /** Stops it and removes its directory. */
  readonly remove: () => Promise<void>;
}

const generous = { perSecond: 100_000, burst: 100_000 };

/** A key broker in this process, on a free port, with a fake attestation service. */
export async function startTestKbs(
  changes: JsonObject = {},
  dependencies: Omit<KbsDependencies, 'attestation'> & { readonly attestation?: FakeAttestationService } = {},
  directory = mkdtempSync(join(tmpdir(), 'sealpod-kbs-')),
  keys = generateKeyPairSync('ed25519'),
): Promise<TestKbs> {
  const publicKeyFile = join(directory, 'owner.pem');
  writeFileSync(publicKeyFile, keys.publicKey.export({ type: 'spki', format: 'pem' }));
  const { limits = {}, ...others } = changes;
  const value = {
    listen: { host: '127.0.0.1', port: 0 },
    dataDirectory: 'data',
    insecureHttp: true,
    admin: { keys: [{ publicKeyFile }] },
    attestationService: { type: 'builtin' },
    ...others,
    limits: { perAddress: generous, global: generous, ...(limits as JsonObject) },
  };
  const lines: string[] = [];
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  const attestation = dependencies.attestation ?? new FakeAttestationService();
  if (dependencies.now !== undefined) attestation.now = dependencies.now;
  const log = pino({ level: 'debug' }, sink);
  const config = parseKbsConfig(value, directory);
  const kbs = await createKbs(config, { log, ...dependencies, attestation });
  const token = (role: AdminRole = 'owner') =>
    signAdminToken({
      privateKey: keys.privateKey,
      role,
      subject: `${role}@test`,
      ttlSeconds: 600,
      now: (dependencies.now ?? Date.now)(),
    });
  return {
    address: kbs.address,
    certificatePem: kbs.certificatePem,
    certificatePath: kbs.certificatePath,
    reloadTls: () => kbs.reloadTls(),
    close: (graceMs) => kbs.close(graceMs),
    directory,
    attestation,
    log: () => lines.join(''),
    token,
    admin: async (target, { role = 'owner', headers = {}, ...options } = {}) => {
      const authorization = `Bearer ${await token(role)}`;
      const ca = kbs.certificatePem;
      return call(kbs.address, target, {
        ...options,
        headers: { ...headers, authorization },
        ...(ca === undefined ? {} : { ca }),
      });
    },
    restart: async () => {
      await kbs.close();
      return startTestKbs(changes, { ...dependencies, attestation }, directory, keys);
    },
    remove: async () => {
      await kbs.close(200);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
