import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RegistryClient } from './client.ts';
import { parseImagePolicy, requireAllowed } from './image-policy.ts';
import { fetchSignatures } from './image-signature.ts';
import { mediaTypes } from './manifest.ts';
import { parseReference } from './reference.ts';
import { type RegistryProcess, registryProcessMissing, startRegistry } from './testing/registry-process.ts';

const missing = registryProcessMissing();
const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

describe.skipIf(missing !== undefined)(
  `signatures in a real registry${missing ? ` (skipped: ${missing})` : ''}`,
  () => {
    let registry: RegistryProcess;
    let client: RegistryClient;
    beforeAll(async () => {
      registry = await startRegistry();
      client = new RegistryClient({ registry: registry.host, plainHttpHosts: new Set([registry.host]) });
    }, 60_000);
    afterAll(async () => {
      client?.close();
      await registry?.stop();
    });

    async function push(bytes: Buffer) {
      const digest = sha256(bytes);
      await client.uploadBlob('team/app', { source: Readable.from([bytes]), digest: () => digest });
      return { digest, size: bytes.length };
    }

    async function pushManifest(tag: string, layers: object[]): Promise<string> {
      const config = { mediaType: mediaTypes.ociConfig, ...(await push(Buffer.from('{}'))) };
      const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers };
      return client.putManifest('team/app', tag, {
        mediaType: mediaTypes.ociManifest,
        bytes: Buffer.from(JSON.stringify(manifest)),
      });
    }

    it('S-20: an image that is not signed is refused, and allowed once it is', async () => {
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const keyData = publicKey.export({ type: 'spki', format: 'pem' }).toString();
      const policy = parseImagePolicy(JSON.stringify({ default: [{ type: 'sigstoreSigned', keyData }] }));
      const digest = await pushManifest('1', []);
      const reference = parseReference(`${registry.host}/team/app@${digest}`);
      const allow = () =>
        requireAllowed(
          policy,
          { reference, manifestDigest: digest },
          {
            signatures: (of) => fetchSignatures(client, 'team/app', of),
            key: async () => keyData,
          },
        );
      await expect(allow()).rejects.toMatchObject({
        code: 'IMG_POLICY_DENY',
        message: 'Image policy rejected: Denied by policy: default: the image is not signed',
      });
      const critical = {
        identity: { 'docker-reference': `${registry.host}/team/app` },
        image: { 'docker-manifest-digest': digest },
        type: 'cosign container image signature',
      };
      const payload = Buffer.from(JSON.stringify({ critical, optional: null }));
      const signature = sign('sha256', payload, privateKey).toString('base64');
      const layer = {
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        ...(await push(payload)),
        annotations: { 'dev.cosignproject.cosign/signature': signature },
      };
      await pushManifest(`${digest.replace(':', '-')}.sig`, [layer]);
      await allow();
    });

    it('a registry that does not answer is no image without signatures', async () => {
      const none = new RegistryClient({
        registry: '127.0.0.1:1',
        plainHttpHosts: new Set(['127.0.0.1:1']),
        maxAttempts: 1,
      });
      await expect(fetchSignatures(none, 'a', `sha256:${'a'.repeat(64)}`)).rejects.toMatchObject({
        code: 'IMG_REGISTRY',
      });
      none.close();
    });
  },
);
