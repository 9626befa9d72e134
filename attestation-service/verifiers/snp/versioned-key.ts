import { SealpodError } from '@sealpod/protocol/errors';
import type { SnpTcb } from '@sealpod/protocol/snp';
import { type Certificate, parseCertificate, parsePemCertificates } from '../../endorsements/certificate.ts';

/** Extensions of AMD's certificates of versioned keys (VCEK certificate and KDS interface specification, section 3.1). */
const extension = '1.3.6.1.4.1.3704.1';
const partExtensions = {
  bootloader: `${extension}.3.1`,
  tee: `${extension}.3.2`,
  snp: `${extension}.3.3`,
  microcode: `${extension}.3.8`,
  fmc: `${extension}.3.9`,
} as const;
const hardwareIdExtension = `${extension}.4`;

/** A key that signs reports: of one chip (VCEK), or of a cloud provider (VLEK), at one version of the firmware. */
export interface VersionedKey {
  readonly certificate: Certificate;
  readonly kind: 'VCEK' | 'VLEK';
  /** The firmware that the key stands for. */
  readonly tcb: SnpTcb;
  /** Chip id, 64 bytes (Turin: the first eight may be all); a VLEK has none. */
  readonly hardwareId?: Buffer;
}

/**
 * Reads a certificate of a versioned key, DER or PEM. Nothing is verified: whether AMD issued it is for its chain to say.
 *
 * @throws SealpodError EV_FORMAT for what is no such certificate
 */
export function parseVersionedKey(bytes: Buffer): VersionedKey {
  const certificate = parseSingle(bytes);
  const known = versionedKeys.get(certificate);
  if (known !== undefined) return known;
  const key = versionedKeyOf(certificate);
  versionedKeys.set(certificate, key);
  return key;
}

const versionedKeys = new WeakMap<Certificate, VersionedKey>();

function versionedKeyOf(certificate: Certificate): VersionedKey {
  const kind = kindOf(certificate);
  const part = (name: keyof typeof partExtensions): number | undefined => {
    const value = certificate.extensions.get(partExtensions[name]);
    return value === undefined ? undefined : smallInteger(value, name);
  };
  const required = (name: keyof typeof partExtensions): number => {
    const value = part(name);
    if (value === undefined) throw new SealpodError('EV_FORMAT', `the certificate of a ${kind} has no ${name} version`);
    return value;
  };
  const fmc = part('fmc');
  const hardwareId = certificate.extensions.get(hardwareIdExtension);
  return {
    certificate,
    kind,
    tcb: {
      ...(fmc === undefined ? {} : { fmc }),
      bootloader: required('bootloader'),
      tee: required('tee'),
      snp: required('snp'),
      microcode: required('microcode'),
    },
    ...(hardwareId === undefined ? {} : { hardwareId: octets(hardwareId) }),
  };
}

function parseSingle(bytes: Buffer): Certificate {
  if (!bytes.subarray(0, 11).equals(Buffer.from('-----BEGIN '))) return parseCertificate(bytes);
  const [certificate, ...more] = parsePemCertificates(bytes.toString('latin1'));
  if (certificate === undefined || more.length > 0)
    throw new SealpodError('EV_FORMAT', 'expected one certificate in a PEM text');
  return certificate;
}

/** The common name tells them apart: `SEV-VCEK`, `SEV-VLEK`. */
function kindOf({ x509 }: Certificate): 'VCEK' | 'VLEK' {
  const name = /(?:^|\n)CN=SEV-(VCEK|VLEK)(?:\n|$)/.exec(x509.subject)?.[1];
  if (name === 'VCEK' || name === 'VLEK') return name;
  throw new SealpodError('EV_FORMAT', 'not the certificate of a versioned key', {
    expected: 'CN=SEV-VCEK or CN=SEV-VLEK',
    actual: x509.subject.replaceAll('\n', ', '),
  });
}

/** A DER INTEGER of 0 to 255. */
function smallInteger(der: Buffer, what: string): number {
  const [tag, length, ...content] = der;
  const value = content.length === 2 && content[0] === 0 ? content[1] : content.length === 1 ? content[0] : undefined;
  if (tag !== 2 || length !== content.length || value === undefined)
    throw new SealpodError('EV_FORMAT', `the ${what} version in a certificate is no integer of one byte`);
  return value;
}

/** Early certificates have the id as it is, later ones wrapped in an OCTET STRING. */
function octets(value: Buffer): Buffer {
  return value.length > 2 && value[0] === 4 && value[1] === value.length - 2 && value.length !== 64
    ? value.subarray(2)
    : value;
}
