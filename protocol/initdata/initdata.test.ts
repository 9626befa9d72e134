import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SealpodError } from '../errors.ts';
import { vectorPath } from '../testing/vectors.ts';
import {
  composeInitdata,
  decodeInitdataAnnotation,
  decodeInitdataDisk,
  encodeInitdataAnnotation,
  encodeInitdataDisk,
  initdataDigest,
  initdataDiskLength,
  maxInitdataBytes,
  maxInitdataCompressedBytes,
  parseInitdata,
  readAttestationAgentConfiguration,
  readDataHubConfiguration,
} from './index.ts';

const document = `algorithm = "sha256"
version = "0.1.0"

[data]
"aa.toml" = '''
[token_configs.kbs]
url = "https://kbs.example:8443"
cert = """
-----BEGIN CERTIFICATE-----
MIIB
-----END CERTIFICATE-----
"""
'''
"policy.rego" = "package agent_policy\\n"
`;

function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof SealpodError) return error.code;
    throw error;
  }
  return 'accepted';
}

describe('parseInitdata', () => {
  it('reads version, algorithm and files', () => {
    const initdata = parseInitdata(document);
    expect(initdata.version).toBe('0.1.0');
    expect(initdata.algorithm).toBe('sha256');
    expect(initdata.data['policy.rego']).toBe('package agent_policy\n');
    expect(Object.keys(initdata.data)).toEqual(['aa.toml', 'policy.rego']);
  });

  it.each([
    ['sha256', 'sha256'],
    ['sha-256', 'sha256'],
    ['SHA-384', 'sha384'],
    ['sha512', 'sha512'],
  ])('accepts the algorithm name %s', (name, expected) => {
    expect(parseInitdata(document.replace('sha256', name)).algorithm).toBe(expected);
  });

  it.each([
    ['no TOML', 'some content'],
    ['another version', document.replace('0.1.0', '0.2.0')],
    ['no version', document.replace('version = "0.1.0"', '')],
    ['an unknown algorithm', document.replace('sha256', 'md5')],
    ['sm3, which the shim does not know', document.replace('sha256', 'sm3')],
    ['no algorithm', document.replace('algorithm = "sha256"', '')],
    ['no data', 'algorithm = "sha256"\nversion = "0.1.0"\n'],
    ['data that is a string', 'algorithm = "sha256"\nversion = "0.1.0"\ndata = "x"\n'],
    ['a file that is a number', `${document}\nx = 1\n`],
    ['a file that is a table', `${document}\n[data.x]\ny = "z"\n`],
    ['a key twice', `${document}"policy.rego" = "package other"\n`],
    ['a prototype key', `${document}__proto__ = "x"\n`],
    ['too many files', document + Array.from({ length: 70 }, (_, index) => `f${index} = "x"`).join('\n')],
    ['too many bytes', `${document}x = "${'a'.repeat(maxInitdataBytes)}"`],
  ])('refuses %s', (_, text) => {
    expect(code(() => parseInitdata(text))).toBe('INITDATA_SCHEMA');
  });

  it.each([
    ['a PEM private key', '-----BEGIN PRIVATE KEY-----\nMC4\n'],
    ['a typed PEM private key', '-----BEGIN EC PRIVATE KEY-----\nMC4\n'],
    ['a private JWK', '{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}'],
    ['registry credentials', '{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}'],
    ['a password', '[x]\npassword = "hunter2"\n'],
  ])('G-14: refuses %s, because initdata is public', (_, value) => {
    expect(code(() => composeInitdata({ data: { 'cdh.toml': value } }))).toBe('INITDATA_SCHEMA');
    expect(code(() => parseInitdata(`${document}"x" = ${JSON.stringify(value)}\n`))).toBe('INITDATA_SCHEMA');
  });

  it('G-14: accepts public keys and certificates', () => {
    const value = '-----BEGIN PUBLIC KEY-----\nMC4\n{"kty":"EC","x":"abc","y":"def"}';
    expect(parseInitdata(composeInitdata({ data: { x: value } })).data['x']).toBe(value);
  });
});

describe('initdataDigest', () => {
  it('is over the raw bytes, so any re-serialisation changes it', () => {
    expect(initdataDigest(document, 'sha256').toString('hex')).toBe(
      createHash('sha256').update(document).digest('hex'),
    );
    expect(initdataDigest(Buffer.from(document), 'sha384')).toHaveLength(48);
    expect(initdataDigest(`${document}\n`, 'sha256').equals(initdataDigest(document, 'sha256'))).toBe(false);
  });
});

describe('composeInitdata', () => {
  it('is deterministic whatever the order of the names', () => {
    const one = composeInitdata({ data: { b: 'x\ny\n', a: 'z' } });
    expect(composeInitdata({ data: { a: 'z', b: 'x\ny\n' } })).toBe(one);
    expect(one).toBe(`algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\na = "z"\nb = '''\nx\ny\n'''\n`);
  });

  it('gives back every text it takes', () => {
    const name = fc
      .string({ minLength: 1, maxLength: 20 })
      .filter((text) => !['__proto__', 'constructor', 'prototype'].includes(text));
    const text = fc.oneof(
      fc.string({ maxLength: 200 }),
      fc.string({
        unit: fc.constantFrom("'", '"', '\\', '\n', '\r', '\t', '\u0000', '\u007f', 'ä', '😀', ' ', '=', '['),
        maxLength: 60,
      }),
    );
    fc.assert(
      fc.property(
        fc.dictionary(name, text, { maxKeys: 6 }),
        fc.constantFrom('sha256', 'sha384', 'sha512'),
        (data, algorithm) => {
          const parsed = parseInitdata(composeInitdata({ algorithm, data }));
          expect({ ...parsed.data }).toEqual({ ...data });
          expect(parsed.algorithm).toBe(algorithm);
        },
      ),
    );
  });
});

describe('initdata disk', () => {
  const vector = vectorPath('kata/initdata.img');

  it('reads the disk that Kata publishes', (context) => {
    if (!existsSync(vector)) context.skip(`${vector} is absent`);
    const disk = readFileSync(vector);
    expect(initdataDiskLength(disk)).toBe(36);
    expect(decodeInitdataDisk(disk).toString()).toBe('some content');
  });

  it('has magic, little-endian length, gzip, and whole sectors', () => {
    const disk = encodeInitdataDisk(document);
    expect(disk.subarray(0, 8).toString()).toBe('initdata');
    expect(disk.length % 512).toBe(0);
    expect(disk.readUInt16LE(16)).toBe(0x8b1f);
    expect(decodeInitdataDisk(disk).toString()).toBe(document);
    expect(encodeInitdataDisk(document).equals(disk)).toBe(true);
  });

  it('gives back any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
        expect(decodeInitdataDisk(encodeInitdataDisk(bytes)).equals(bytes)).toBe(true);
      }),
    );
  });

  it('never fails but with its own code, whatever byte is changed', () => {
    const disk = encodeInitdataDisk(document);
    fc.assert(
      fc.property(fc.nat(disk.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const changed = Buffer.from(disk);
        changed[at] = (changed[at] ?? 0) ^ change;
        expect(['INITDATA_SCHEMA', 'accepted']).toContain(code(() => decodeInitdataDisk(changed)));
      }),
    );
  });

  it('knows another disk by its magic', () => {
    expect(initdataDiskLength(Buffer.alloc(512))).toBeUndefined();
    expect(initdataDiskLength(Buffer.from('init'))).toBeUndefined();
    expect(code(() => decodeInitdataDisk(Buffer.alloc(512)))).toBe('INITDATA_SCHEMA');
  });

  it('refuses a length beyond the limit, a truncated disk and a gzip bomb', () => {
    const disk = encodeInitdataDisk(document);
    const long = Buffer.from(disk);
    long.writeBigUInt64LE(BigInt(maxInitdataCompressedBytes + 1), 8);
    expect(code(() => initdataDiskLength(long))).toBe('INITDATA_SCHEMA');
    long.writeBigUInt64LE(0xffff_ffff_ffff_ffffn, 8);
    expect(code(() => decodeInitdataDisk(long))).toBe('INITDATA_SCHEMA');
    expect(code(() => decodeInitdataDisk(disk.subarray(0, 40)))).toBe('INITDATA_SCHEMA');
    const bomb = gzipSync(Buffer.alloc(maxInitdataBytes + 1));
    const header = Buffer.alloc(16);
    header.write('initdata');
    header.writeBigUInt64LE(BigInt(bomb.length), 8);
    expect(code(() => decodeInitdataDisk(Buffer.concat([header, bomb])))).toBe('INITDATA_SCHEMA');
  });
});

describe('initdata annotation', () => {
  it('is base64 of gzip of the document', () => {
    expect(decodeInitdataAnnotation(encodeInitdataAnnotation(document))).toBe(document);
    expect(decodeInitdataAnnotation(gzipSync(document).toString('base64'))).toBe(document);
  });

  it.each([
    ['no base64', '****'],
    ['nothing', ''],
    ['no gzip', Buffer.from('hello').toString('base64')],
    ['no UTF-8', gzipSync(Buffer.from([0xff, 0xfe])).toString('base64')],
    ['a bomb', gzipSync(Buffer.alloc(maxInitdataBytes + 1)).toString('base64')],
    ['too much', 'A'.repeat(2 * maxInitdataCompressedBytes)],
  ])('refuses %s', (_, annotation) => {
    expect(code(() => decodeInitdataAnnotation(annotation))).toBe('INITDATA_SCHEMA');
  });
});

describe('configuration files', () => {
  it('reads the address and the pinned certificate of aa.toml', () => {
    const aa = readAttestationAgentConfiguration(parseInitdata(document).data['aa.toml'] ?? '');
    expect(aa.kbs?.url).toBe('https://kbs.example:8443');
    expect(aa.kbs?.cert).toContain('-----BEGIN CERTIFICATE-----');
    expect(readAttestationAgentConfiguration('')).toEqual({});
    expect(code(() => readAttestationAgentConfiguration('[token_configs.kbs]\n'))).toBe('INITDATA_SCHEMA');
    expect(code(() => readAttestationAgentConfiguration('[token_configs.kbs]\nurl = 1\n'))).toBe('INITDATA_SCHEMA');
    expect(code(() => readAttestationAgentConfiguration('token_configs = 1\n'))).toBe('INITDATA_SCHEMA');
  });

  it('reads what the data hub uses of cdh.toml, and ignores the rest', () => {
    const cdh = readDataHubConfiguration(`
socket = "unix:///x"
[kbc]
name = "cc_kbc"
url = "https://kbs.example"
[image]
image_security_policy = '{"default":[{"type":"reject"}]}'
max_concurrent_layer_downloads_per_image = 4
[image.registry_config]
unqualified-search-registries = ["registry.example"]
[[image.registry_config.registry]]
location = "127.0.0.1:5000"
insecure = true
[[image.registry_config.registry.mirror]]
location = "mirror.example"
`);
    expect(cdh).toEqual({
      kbc: { name: 'cc_kbc', url: 'https://kbs.example' },
      image: {
        imageSecurityPolicy: '{"default":[{"type":"reject"}]}',
        maxConcurrentLayerDownloads: 4,
        extraRootCertificates: [],
        unqualifiedSearchRegistries: ['registry.example'],
        registries: [
          {
            location: '127.0.0.1:5000',
            insecure: true,
            blocked: false,
            mirrors: [{ location: 'mirror.example', insecure: false }],
          },
        ],
      },
      skipSealedSecretVerification: false,
    });
  });

  it.each([
    ['a policy that is a table', '[image.image_security_policy]\nx = 1\n'],
    ['a registry without a place', '[[image.registry_config.registry]]\ninsecure = true\n'],
    ['insecure as text', '[[image.registry_config.registry]]\nlocation = "a"\ninsecure = "true"\n'],
    ['a count of zero', '[image]\nmax_concurrent_layer_downloads_per_image = 0\n'],
    ['a switch as text', 'skip_sealed_secret_verification = "yes"\n'],
    ['certificates as text', '[image]\nextra_root_certificates = "x"\n'],
    ['a kbc without name', '[kbc]\nurl = "https://x"\n'],
  ])('refuses %s', (_, toml) => {
    expect(code(() => readDataHubConfiguration(toml))).toBe('INITDATA_SCHEMA');
  });
});
