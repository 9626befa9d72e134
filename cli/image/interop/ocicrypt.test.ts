import { execFile, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  createLayerDecryptor,
  createLayerEncryptor,
  encodeAnnotationPacket,
  encodePrivateLayerOptions,
  parseAnnotationPacket,
  parsePrivateLayerOptions,
  readEncryptionAnnotations,
  unwrapPrivateOptions,
  wrapPrivateOptions,
  writeEncryptionAnnotations,
} from '@sealpod/protocol/ocicrypt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** The Go library of skopeo, buildah and containerd's stream processor, built here as a program, is the peer. */
const peerSource = join(import.meta.dirname, 'ocicrypt-peer');
const keyProvider = fileURLToPath(new URL('./key-provider.ts', import.meta.url));
const goProgram = ['/usr/local/go/bin/go', '/usr/bin/go'].find((path) => existsSync(path));
const keyId = 'kbs:///default/image-key/1';
const key = randomBytes(32);
const layer = randomBytes(100_000);
const layerDigest = `sha256:${createHash('sha256').update(layer).digest('hex')}`;

let directory: string;
let problem: string | undefined;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-ocicrypt-'));
  if (goProgram === undefined) {
    problem = 'Go is not installed';
    return;
  }
  try {
    const environment = { ...process.env, CGO_ENABLED: '0' };
    await promisify(execFile)(goProgram, ['build', '-o', join(directory, 'peer'), '.'], {
      cwd: peerSource,
      env: environment,
    });
  } catch (error) {
    problem = `the peer cannot be built: ${String(error).slice(0, 300)}`;
    return;
  }
  writeFileSync(join(directory, 'key'), key, { mode: 0o600 });
  // The command of a provider is a program with arguments.
  const command = { path: process.execPath, args: [keyProvider, join(directory, 'key')] };
  const providers = { 'key-providers': { 'attestation-agent': { cmd: command } } };
  writeFileSync(join(directory, 'ocicrypt.json'), JSON.stringify(providers));
}, 300_000);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function runPeer(args: readonly string[], input: Buffer): Promise<{ output: Buffer; annotations: string }> {
  const peer = spawn(join(directory, 'peer'), args, {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    env: { ...process.env, OCICRYPT_KEYPROVIDER_CONFIG: join(directory, 'ocicrypt.json') },
  });
  peer.stdin.end(input);
  const exited = new Promise<number | null>((resolve) => peer.once('close', resolve));
  const [output, log, annotations] = await Promise.all([
    buffer(peer.stdout),
    buffer(peer.stderr),
    buffer(peer.stdio[3] as Readable),
  ]);
  const status = await exited;
  if (status !== 0) throw new Error(`peer fails: ${log.toString()}`);
  return { output, annotations: annotations.toString() };
}

const through = (bytes: Buffer, transform: ReturnType<typeof createLayerDecryptor>) =>
  buffer(Readable.from([bytes]).compose(transform));

async function encryptOurselves() {
  const encryptor = createLayerEncryptor();
  const ciphertext = await through(layer, encryptor.stream);
  const { privateOptions, publicOptions, ciphertextDigest, size } = encryptor.result();
  const wrapped = wrapPrivateOptions(encodePrivateLayerOptions(privateOptions), key);
  const annotations = writeEncryptionAnnotations(publicOptions, encodeAnnotationPacket({ keyId, ...wrapped }));
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted';
  return { ciphertext, descriptor: { mediaType, digest: ciphertextDigest, size, annotations } };
}

describe('ocicrypt of Go as peer', () => {
  it('decrypts what we encrypt', async (context) => {
    if (problem !== undefined) context.skip(problem);
    const { ciphertext, descriptor } = await encryptOurselves();
    const { output } = await runPeer(['decrypt', JSON.stringify(descriptor)], ciphertext);
    expect(output.equals(layer)).toBe(true);
  });

  it('refuses what we encrypt and somebody changes', async (context) => {
    if (problem !== undefined) context.skip(problem);
    const { ciphertext, descriptor } = await encryptOurselves();
    ciphertext.writeUInt8(ciphertext.readUInt8(99) ^ 1, 99);
    await expect(runPeer(['decrypt', JSON.stringify(descriptor)], ciphertext)).rejects.toThrow(/peer fails/);
  });

  it('encrypts what we decrypt', async (context) => {
    if (problem !== undefined) context.skip(problem);
    const peer = await runPeer(['encrypt', 'attestation-agent', keyId, layerDigest], layer);
    const annotations = JSON.parse(peer.annotations) as Record<string, string>;
    const ours = (await encryptOurselves()).descriptor.annotations;
    expect(Object.keys(annotations).sort()).toEqual(Object.keys(ours).sort());
    const { publicOptions, annotationPackets } = readEncryptionAnnotations(annotations);
    const [packet] = annotationPackets;
    if (packet === undefined) throw new Error('no packet');
    expect(parseAnnotationPacket(packet).keyId).toBe(keyId);
    const options = parsePrivateLayerOptions(unwrapPrivateOptions(parseAnnotationPacket(packet), key));
    expect((await through(peer.output, createLayerDecryptor(options, publicOptions))).equals(layer)).toBe(true);
    // Member for member the bytes that we write for the same values.
    const publicText = (each: Record<string, string>) =>
      Buffer.from(each['org.opencontainers.image.enc.pubopts'] ?? '', 'base64')
        .toString()
        .replace(/"hmac":"[^"]+"/, '"hmac"');
    expect(publicText(annotations)).toBe(publicText(ours));
  });
});

/** skopeo itself, where it is new enough to know key providers (ocicrypt 1.1 or later; Debian 12's is not). */
describe('skopeo as peer', () => {
  it('copies an image and decrypts it with the key provider', async (context) => {
    if (!existsSync('/usr/bin/skopeo')) context.skip('skopeo is not installed');
    const version = /(\d+)\.(\d+)/.exec(execFileSync('skopeo', ['--version']).toString());
    const [major = 0, minor = 0] = (version ?? []).slice(1).map(Number);
    if (major === 1 && minor < 13) context.skip(`skopeo ${major}.${minor} knows no key providers`);
    if (problem !== undefined) context.skip(problem);
    const { buildImage, encryptImage, parseImageLocation } = await import('../index.ts');
    const { startRegistry } = await import('@sealpod/registry/testing');
    const { parseReference } = await import('@sealpod/registry');
    const registry = await startRegistry();
    try {
      mkdirSync(join(directory, 'skopeo'));
      const output = join(directory, 'skopeo', 'layout');
      await buildImage({ root: [{ path: 'f', type: 'file', content: layer }], process: {}, output, tag: '1' });
      await encryptImage({
        source: parseImageLocation(`oci:${output}`),
        destination: parseReference(`${registry.host}/encrypted:1`),
        plainHttpHosts: new Set([registry.host]),
        keyId,
        keyEncryptionKey: key,
      });
      const from = `docker://${registry.host}/encrypted:1`;
      const options = [
        '--src-tls-verify=false',
        '--insecure-policy',
        '--decryption-key',
        'provider:attestation-agent:null',
      ];
      execFileSync('skopeo', ['copy', ...options, from, `oci:${join(directory, 'skopeo', 'decrypted')}:1`], {
        env: { ...process.env, OCICRYPT_KEYPROVIDER_CONFIG: join(directory, 'ocicrypt.json') },
      });
      expect(existsSync(join(directory, 'skopeo', 'decrypted', 'index.json'))).toBe(true);
    } finally {
      await registry.stop();
    }
  });
});
