import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KbsClient } from '@sealpod/kbs-client';
import type { ImageReference } from '@sealpod/registry';
import type { EnvironmentState } from '../development/state.ts';
import { environmentReference } from '../pod/image.ts';
import { buildImage, type ImageEntry, type ImageProcess } from './build.ts';
import { type EncryptedImage, encryptImage } from './encrypt.ts';
import { pushImage } from './push.ts';
import { parseImageLocation, type RegistryAccess } from './source.ts';

const busybox = '/bin/busybox';
const applets = [
  'sh',
  'cat',
  'sleep',
  'ls',
  'echo',
  'id',
  'env',
  'nc',
  'wget',
  'kill',
  'ps',
  'head',
  'stty',
  'tty',
  'dd',
  'sha256sum',
  'true',
  'false',
];
/** Prints the message, then waits to be told to end. */
const script = "trap 'exit 0' TERM; cat /message; while :; do sleep 3600 & wait $!; done";

function access(state: EnvironmentState): RegistryAccess {
  return { plainHttpHosts: new Set(state.registry === undefined ? [] : [state.registry]) };
}

/** Builds the example image (Debian's busybox and one text file) and pushes it; returns the manifest's digest. */
export async function pushExampleImage(state: EnvironmentState, name: string, message: string): Promise<string> {
  const root: ImageEntry[] = [
    ...['bin', 'etc', 'tmp', 'root'].map((path): ImageEntry => ({ path, type: 'directory' })),
    { path: 'bin/busybox', type: 'file', mode: 0o755, content: { file: busybox } },
    ...applets.map((applet): ImageEntry => ({ path: `bin/${applet}`, type: 'symlink', target: 'busybox' })),
    { path: 'etc/passwd', type: 'file', content: Buffer.from('root:x:0:0:root:/root:/bin/sh\n') },
    { path: 'message', type: 'file', content: Buffer.from(`${message}\n`) },
  ];
  return pushBuilt(state, name, root, { entrypoint: ['/bin/sh', '-c', script], environment: ['PATH=/bin'] });
}

/** Pushes the image that containerd wants to have for sandboxes. Nothing of it ever runs: the sandbox is a machine. */
export async function pushSandboxImage(state: EnvironmentState, name: string): Promise<string> {
  return pushBuilt(state, name, [{ path: 'pause', type: 'file', mode: 0o755, content: Buffer.from('') }], {
    entrypoint: ['/pause'],
  });
}

async function pushBuilt(
  state: EnvironmentState,
  name: string,
  root: readonly ImageEntry[],
  process: ImageProcess,
): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'sealpod-image-'));
  try {
    const output = join(directory, 'layout');
    await buildImage({ root, process, output, tag: 'latest' });
    const destination = environmentReference(state, name);
    return await pushImage({
      ...access(state),
      source: { kind: 'layout', directory: output, tag: 'latest' },
      destination,
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** What `sealpod image encrypt` is told. */
export interface EncryptionRequest {
  /** Reference, `oci:DIRECTORY[:TAG]` or `oci-archive:FILE[:TAG]`. */
  readonly source: string;
  readonly destination: string;
  /** repository/type/tag under which the key broker keeps the key. */
  readonly keyPath: string;
  /** Resource policy to bind to the key; without one the policy `resource-policy` decides. */
  readonly policyId?: string;
}

/** As `encryptForKeyBroker`, with images that are named as in an environment and its own registry. */
export function encryptIntoEnvironment(
  state: EnvironmentState,
  client: KbsClient,
  request: EncryptionRequest,
): Promise<EncryptedImage> {
  return encryptForKeyBroker(client, request, access(state), (text) => environmentReference(state, text));
}

/**
 * Encrypts an image and stores the new key in the key broker, with its policy, in one step. The key is stored when the
 * layers are there and the image is not yet: an image nobody can decrypt would be worse than a key nobody uses, and what
 * cannot be encrypted must not replace the key of another image. It never touches the disk here.
 *
 * @param referenceOf what a text that names an image means
 */
export async function encryptForKeyBroker(
  client: KbsClient,
  request: EncryptionRequest,
  registries: RegistryAccess,
  referenceOf: (text: string) => ImageReference,
): Promise<EncryptedImage> {
  const keyEncryptionKey = randomBytes(32);
  const query = request.policyId === undefined ? '' : `?policy=${encodeURIComponent(request.policyId)}`;
  const storeKey = async (): Promise<void> => {
    await client.put(`/admin/v1/resources/${request.keyPath}${query}`, keyEncryptionKey);
  };
  try {
    const layoutSource = /^(oci|oci-archive):/.test(request.source);
    return await encryptImage({
      ...registries,
      source: layoutSource
        ? parseImageLocation(request.source)
        : { kind: 'registry', reference: referenceOf(request.source) },
      destination: referenceOf(request.destination),
      keyId: `kbs:///${request.keyPath}`,
      keyEncryptionKey,
      beforeManifest: storeKey,
    });
  } finally {
    keyEncryptionKey.fill(0);
  }
}
