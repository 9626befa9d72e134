import { describe, expect, it } from 'vitest';
import { findCredentials } from './auth-file.ts';
import { parseReference } from './reference.ts';

const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') });
const file = (auths: object) => Buffer.from(JSON.stringify({ auths }));

describe('findCredentials', () => {
  it('prefers the longest namespace, then the registry', () => {
    const bytes = file({
      'registry.example': auth('host:1'),
      'registry.example/team': auth('team:2'),
      'registry.example/team/app': auth('app:3:4\n'),
    });
    const find = (text: string) => findCredentials(bytes, parseReference(text))?.username;
    expect(findCredentials(bytes, parseReference('registry.example/team/app'))).toEqual({
      username: 'app',
      password: '3:4',
    });
    expect(find('registry.example/team/other')).toBe('team');
    expect(find('registry.example/teamwork/app')).toBe('host');
    expect(find('other.example/team/app')).toBeUndefined();
    expect(find('registry.example:5000/team/app')).toBeUndefined();
  });

  it('finds the default registry under its old key', () => {
    const bytes = file({ 'https://index.docker.io/v1/': auth('user:secret') });
    expect(findCredentials(bytes, parseReference('busybox'))).toEqual({ username: 'user', password: 'secret' });
  });

  it.each(['{', '[]', '{"auths":[]}', '{"auths":{"docker.io":{"auth":"?"}}}'])('refuses %s', (text) => {
    expect(() => findCredentials(Buffer.from(text), parseReference('busybox'))).toThrow(
      expect.objectContaining({ code: 'IMG_AUTH' }),
    );
  });
});
