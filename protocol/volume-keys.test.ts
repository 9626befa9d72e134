import { expect, it } from 'vitest';
import { expandVolumeKey, parseVolumeKeys } from './volume-keys.ts';

it('names the key of each path, with the pod in it, or says that there is none', () => {
  const keys = parseVolumeKeys('{"/data":"kbs:///default/volume-key/$(namespace)-$(name)","/scratch":"none"}');
  expect([...keys]).toEqual([
    ['/data', 'kbs:///default/volume-key/$(namespace)-$(name)'],
    ['/scratch', 'none'],
  ]);
  expect(expandVolumeKey(keys.get('/data') ?? '', { name: 'db-0', namespace: 'shop' })).toBe(
    'kbs:///default/volume-key/shop-db-0',
  );
  expect(parseVolumeKeys(undefined).size).toBe(0);
});

it('refuses what says nothing clear', () => {
  for (const text of ['', '[]', '"none"', '{"/a":1}', '{"/a":null}', `{"/a":"none"${' '.repeat(1 << 17)}}`])
    expect(() => parseVolumeKeys(text), text.slice(0, 20)).toThrow(expect.objectContaining({ code: 'REQUEST_FORMAT' }));
  for (const key of ['', 'None', 'file:///etc/passwd', 'kbs:///a/../b', 'sealed.x'])
    expect(() => parseVolumeKeys(JSON.stringify({ '/a': key })), key).toThrow(
      expect.objectContaining({ code: 'RES_NAME' }),
    );
});
