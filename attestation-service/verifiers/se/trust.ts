import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { parseSeHeaderTags } from '@sealpod/protocol/se';
import { type Certificate, parseCertificate, parsePemCertificates } from '../../endorsements/certificate.ts';
import { enrolRoots } from '../../endorsements/enrolled-roots.ts';
import type { HostKeyTrust } from '../../endorsements/ibm/host-keys.ts';
import type { SeConfig } from './config.ts';

/** What evidence of TEE `se` is verified with. */
export interface SeTrust extends HostKeyTrust {
  /** One of each machine. Verified anew for each challenge, since they and their lists expire. */
  readonly hostKeyDocuments: readonly Certificate[];
  /** Of images that guests may run; 208 bytes each. The first is the one that challenges name. */
  readonly imageHeaderTags: readonly Buffer[];
  readonly measurementKey?: KeyObject;
}

const largestImage = 512 * 1024 * 1024;
/** A request has a slot for each, and one byte for their number. */
const mostHostKeys = 255;

/** Reads what a configuration names. @throws SealpodError USAGE naming the file */
export function readSeTrust(config: SeConfig): SeTrust {
  const [root] = enrolRoots([
    { name: config.rootFile, certificates: read(config.rootFile).toString('latin1'), simulated: false },
  ]);
  if (root === undefined) throw new SealpodError('USAGE', 'se.rootFile holds no root');
  const hostKeyDocuments = files(config.hostKeyDocuments).map(readHostKeyDocument);
  if (hostKeyDocuments.length === 0 || hostKeyDocuments.length > mostHostKeys) {
    throw new SealpodError('USAGE', 'wrong number of host key documents', {
      expected: `1 to ${mostHostKeys}`,
      actual: `${hostKeyDocuments.length} in ${config.hostKeyDocuments}`,
    });
  }
  return {
    root,
    hostKeyDocuments,
    certificates: files(config.certificates).flatMap((path) => reading(path, () => parseAll(read(path)))),
    revocationLists: files(config.revocationLists).map((path) => derOf(read(path), 'X509 CRL')),
    imageHeaderTags: config.imageHeaders.map((path) => reading(path, () => parseSeHeaderTags(read(path)))),
    ...(config.measurementKeyFile === undefined ? {} : { measurementKey: readRsaKey(config.measurementKeyFile) }),
  };
}

function readHostKeyDocument(path: string): Certificate {
  const [document, ...more] = reading(path, () => parseAll(read(path)));
  if (document === undefined || more.length > 0)
    throw new SealpodError('USAGE', 'a host key document is not one certificate', { actual: path });
  return document;
}

function readRsaKey(path: string): KeyObject {
  const key = reading(path, () => createPrivateKey(read(path)));
  if (key.asymmetricKeyType !== 'rsa') throw new SealpodError('USAGE', 'se.measurementKeyFile is no RSA key');
  return key;
}

function parseAll(bytes: Buffer): Certificate[] {
  return bytes[0] === 0x30 ? [parseCertificate(bytes)] : parsePemCertificates(bytes.toString('latin1'));
}

/** The DER of a PEM text, or the bytes where they are DER. */
function derOf(bytes: Buffer, label: string): Buffer {
  if (bytes[0] === 0x30) return bytes;
  const [, base64 = ''] = new RegExp(`-----BEGIN ${label}-----([^-]+)-----END`).exec(bytes.toString('latin1')) ?? [];
  return Buffer.from(base64, 'base64');
}

function files(folder: string): string[] {
  return reading(folder, () =>
    readdirSync(folder)
      .sort()
      .map((name) => join(folder, name))
      .filter((path) => statSync(path).isFile()),
  );
}

function read(path: string): Buffer {
  return reading(path, () => {
    if (statSync(path).size > largestImage) throw new RangeError(`larger than ${largestImage} bytes`);
    return readFileSync(path);
  });
}

function reading<Value>(path: string, work: () => Value): Value {
  try {
    return work();
  } catch (cause) {
    throw new SealpodError('USAGE', `${path} cannot be used`, {
      actual: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}
