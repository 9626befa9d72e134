import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ChannelIdentity, createChannelIdentity, restoreChannelIdentity } from '@sealpod/protocol/agent-channel';

/**
 * The key by which guests know this adaptor again, over its restarts: kept with its state, 0600. Throws the system's error,
 * and where the file holds no key.
 */
export async function adaptorChannelKey(stateDirectory: string): Promise<ChannelIdentity> {
  const path = join(stateDirectory, 'agent-channel-key.pem');
  const kept = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (kept !== undefined) return restoreChannelIdentity(kept);
  const identity = await createChannelIdentity();
  await writeFile(path, identity.privateKey, { flag: 'wx', mode: 0o600, flush: true });
  return identity;
}
