import { describe, expect, it } from 'vitest';
import { parseRecord } from './packages.ts';

const record = `Package: tini
Version: 0.19.0-1+b3
Architecture: amd64
Description: tiny but valid init
 Size: not this one
Size: 267204
SHA256: 7d1947665fa40e55f218fefad773dc6de66458d0b39eaa292cdcadfc7c996632`;

describe('parseRecord', () => {
  it('reads a stanza of the package lists', () => {
    expect(parseRecord(record)).toEqual({
      name: 'tini',
      version: '0.19.0-1+b3',
      architecture: 'amd64',
      size: 267204,
      sha256: '7d1947665fa40e55f218fefad773dc6de66458d0b39eaa292cdcadfc7c996632',
    });
  });

  it.each(['Package', 'Version', 'Architecture', 'Size', 'SHA256'])('refuses one without %s', (field) => {
    const text = record.replace(new RegExp(`^${field}: .*$`, 'm'), '');
    expect(() => parseRecord(text)).toThrow(`lacks ${field}`);
  });
});
