import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '@sealpod/protocol/json';
import { describe, expect, it } from 'vitest';
import { loadKbsConfig, parseKbsConfig } from './config.ts';

const minimal: JsonObject = {
  listen: { port: 8443 },
  dataDirectory: 'data',
  admin: { keys: [{ publicKeyFile: 'owner.pem' }] },
  attestationService: { type: 'builtin' },
};

describe('configuration', () => {
  it('has safe defaults', () => {
    expect(parseKbsConfig(minimal, '/etc/kbs')).toMatchObject({
      listen: { host: '127.0.0.1', port: 8443 },
      dataDirectory: '/etc/kbs/data',
      insecureHttp: false,
      tlsHosts: ['localhost', '127.0.0.1', '::1'],
      admin: {
        keys: [{ publicKeyFile: '/etc/kbs/owner.pem', maxRole: 'owner', issuer: 'sealpod', audience: 'sealpod-kbs' }],
      },
      attestationService: { type: 'builtin', sample: false, token: {} },
      limits: { sessionSeconds: 300, maxResourceBytes: 4 * 1024 * 1024 - 4096, keptVersions: 10 },
      logLevel: 'info',
    });
  });

  it.each<[string, JsonObject]>([
    ['listen', { listen: 'x' }],
    ['listen.port', { listen: {} }],
    ['listen.port', { listen: { port: 65_536 } }],
    ['listen.prot', { listen: { port: 1, prot: 1 } }],
    ['dataDirectory', { dataDirectory: '' }],
    ['dataDirectory', { dataDirectory: 5 }],
    ['insecureHttp', { insecureHttp: 'true' }],
    ['tlsHosts', { tlsHosts: 'a' }],
    ['tlsHosts', { tlsHosts: [''] }],
    ['tls.privateKey', { tls: { certificate: 'a' } }],
    ['admin', { admin: [] }],
    ['admin.keys', { admin: {} }],
    ['admin.keys', { admin: { keys: [] } }],
    ['admin.keys', { admin: { keys: [{ publicKeyFile: 'a', maxRole: 'operator' }] } }],
    ['admin.keys[0].maxRole', { admin: { keys: [{ publicKeyFile: 'a', maxRole: 'root' }] } }],
    ['admin.keys[0].publicKeyFile', { admin: { keys: [{}] } }],
    ['attestationService.type', { attestationService: { type: 'other' } }],
    ['attestationService.sampel', { attestationService: { type: 'builtin', sampel: true } }],
    ['attestationService.address', { attestationService: { type: 'grpc' } }],
    ['attestationService.tpm.roots', { attestationService: { type: 'builtin', tpm: {} } }],
    [
      'attestationService.tpm.roots[0].name',
      { attestationService: { type: 'builtin', tpm: { roots: [{ certificates: 'x' }] } } },
    ],
    ['limits.perAddress.burst', { limits: { perAddress: { perSecond: 1 } } }],
    ['limits.maxResourceBytes', { limits: { maxResourceBytes: 5_000_000 } }],
    ['limits.sessionSeconds', { limits: { sessionSeconds: 0 } }],
    ['logLevel', { logLevel: 'loud' }],
    ['unknown', { unknown: 1 }],
  ])('names %s where it is wrong', (member, changes) => {
    const parse = () => parseKbsConfig({ ...minimal, ...changes }, '/');
    expect(parse).toThrow(expect.objectContaining({ code: 'USAGE', message: expect.stringContaining(member) }));
  });

  it.each(['', 'x', '[]', '{"listen":1,"listen":2}'])('refuses a file that holds %j', (text) => {
    const directory = mkdtempSync(join(tmpdir(), 'sealpod-config-'));
    const file = join(directory, 'kbs.json');
    writeFileSync(file, text);
    expect(() => loadKbsConfig(file)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    rmSync(directory, { recursive: true });
  });
});
