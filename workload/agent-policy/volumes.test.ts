import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { readManifests } from '../kubernetes/manifests.ts';
import type { PodSpec, Volume } from '../kubernetes/types.ts';
import { copiedVolumes } from './volumes.ts';

const sealed = 'sealed.header.payload.signature';
const file = (text: string) => ({ size: text.length, sha256: createHash('sha256').update(text).digest('hex') });
const { configuration } = readManifests(`
kind: ConfigMap
metadata: { name: settings }
data: { mode: fast, other: "1" }
---
kind: Secret
metadata: { name: credentials }
data: { user: ${Buffer.from('alice').toString('base64')}, key: ${Buffer.from(sealed).toString('base64')} }
stringData: { token: ${sealed} }
`);

/** The one volume, and what the owner was told of it. */
function copied(volume: Volume, more: Partial<PodSpec> = {}) {
  const notes: string[] = [];
  const volumes = copiedVolumes({ volumes: [volume], ...more }, configuration, notes);
  return { files: volumes.at(-1)?.files, notes };
}

describe('content of copied volumes', () => {
  it.each<[string, Volume, object | null, number]>([
    ['a ConfigMap', { name: 'v', configMap: { name: 'settings' } }, { mode: file('fast'), other: file('1') }, 0],
    [
      'some keys of a ConfigMap, by path',
      { name: 'v', configMap: { name: 'settings', items: [{ key: 'mode', path: 'a/b' }] } },
      { 'a/b': file('fast') },
      0,
    ],
    [
      'a Secret: the names of all, the content of what is sealed',
      { name: 'v', secret: { secretName: 'credentials' } },
      { user: null, key: file(sealed), token: file(sealed) },
      1,
    ],
    [
      'a sealed key of a Secret alone',
      { name: 'v', secret: { secretName: 'credentials', items: [{ key: 'key', path: 'tls.key' }] } },
      { 'tls.key': file(sealed) },
      0,
    ],
    [
      'a projected volume of both',
      {
        name: 'v',
        projected: {
          sources: [
            { configMap: { name: 'settings', items: [{ key: 'mode', path: 'mode' }] } },
            { secret: { name: 'credentials', items: [{ key: 'token', path: 'token' }] } },
          ],
        },
      },
      { mode: file('fast'), token: file(sealed) },
      0,
    ],
    ['a Secret that was not given', { name: 'v', secret: { secretName: 'other' } }, null, 1],
    ['a projected volume with a token', { name: 'v', projected: { sources: [{ serviceAccountToken: {} }] } }, null, 1],
  ])('%s', (_what, volume, files, notes) => {
    const found = copied(volume);
    expect(found.files).toEqual(files);
    expect(found.notes).toHaveLength(notes);
  });

  it('one sealed file as a subPath', () => {
    const containers = [{ name: 'c', volumeMounts: [{ name: 'v', mountPath: '/key', subPath: 'key' }] }];
    expect(copied({ name: 'v', secret: { secretName: 'credentials' } }, { containers }).files).toEqual({
      '': file(sealed),
    });
  });
});
