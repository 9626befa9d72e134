import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatReference, parseReference, registryEndpoint } from './reference.ts';

const digest = `sha256:${'ab'.repeat(32)}`;

describe('parseReference', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['index.docker.io/library/busybox', 'docker.io/library/busybox:latest'],
    ['team/app', 'docker.io/team/app:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:1', 'localhost:5000/app:1'],
    ['127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    ['Registry.Example/app', 'registry.example/app:latest'],
    ['registry.example/a__b/c-d.e:V1', 'registry.example/a__b/c-d.e:V1'],
    [`registry.example/app@${digest}`, `registry.example/app@${digest}`],
    [`registry.example/app:1@${digest}`, `registry.example/app@${digest}`],
  ])('normalises %s', (text, normal) => {
    expect(formatReference(parseReference(text))).toBe(normal);
  });

  it.each([
    '',
    '/app',
    'registry.example/',
    'registry.example/App',
    'App',
    'app:',
    'app: ',
    'app:a/b',
    'a//b',
    '../app',
    'registry.example/../app',
    'registry.example/a/../../b',
    'registry.example/a%2fb',
    'registry.example/app?x=y',
    'registry.example/app#x',
    'user@registry.example/app',
    'http://registry.example/app',
    'app@sha256:00',
    `app@${digest}@${digest}`,
    `app@md5:${'0'.repeat(32)}`,
    'registry.example:99999999/app',
    `${'a'.repeat(300)}`,
    'app\n',
    'аpp',
  ])('refuses %j', (text) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({ code: 'IMG_FORMAT' }));
  });

  it('is idempotent and safe in a URL path, whatever it accepts', () => {
    const characters = fc.constantFrom(...'abAB01._-/:@%?# \\é');
    fc.assert(
      fc.property(fc.string({ unit: characters, maxLength: 24 }), (text) => {
        let reference: ReturnType<typeof parseReference>;
        try {
          reference = parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'IMG_FORMAT' });
          return;
        }
        expect(parseReference(formatReference(reference))).toEqual(reference);
        const path = `/v2/${reference.repository}/manifests/${reference.digest ?? reference.tag}`;
        const url = new URL(path, `https://${registryEndpoint(reference.registry)}`);
        expect(url.pathname).toBe(path);
      }),
      { numRuns: 3000 },
    );
  });
});
