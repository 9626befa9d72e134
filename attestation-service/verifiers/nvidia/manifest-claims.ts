import type { JsonObject } from '@sealpod/protocol/json';
import { OpaqueType } from '@sealpod/protocol/nvidia';
import type { Certificate } from '../../endorsements/certificate.ts';
import { deviceClass, fieldText, firmwareVersion } from './claims.ts';
import type { FoundManifest } from './manifests.ts';
import type { DeviceStatement } from './verify.ts';

/**
 * The claims that NVIDIA's own verifiers make (claims version 3.0), of a device that was held against its reference manifests: a
 * policy that is written for them appraises locally verified devices too. Only for a verdict that passed.
 *
 * @param revocationChecked whether the certificates were asked for at an OCSP service
 */
export function manifestClaims(
  { architecture, report, certificates }: DeviceStatement,
  found: readonly FoundManifest[],
  revocationChecked: boolean,
  now: Date,
): JsonObject {
  const kind = deviceClass(architecture);
  const prefix = `x-nvidia-${kind}`;
  const { fields } = report.response.opaqueData;
  const driver = fields.get(OpaqueType.driverVersion);
  const firmware = firmwareVersion(fields.get(OpaqueType.vbiosVersion)?.value ?? Buffer.alloc(0), architecture);
  const firmwareName = kind === 'gpu' ? 'vbios' : 'bios';
  const manifests = found.flatMap(({ kind: about, manifest }) =>
    Object.entries(
      oneManifest(
        `${prefix}-${about === 'vbios' ? firmwareName : about}-rim`,
        manifest?.certificates ?? [],
        revocationChecked,
        now,
      ),
    ),
  );
  const manufacturer = found.find(({ manifest }) => manifest?.firmwareManufacturerId !== undefined)?.manifest;
  return {
    measres: 'success',
    secboot: true,
    dbgstat: 'disabled',
    [`${prefix}-arch-check`]: true,
    ...(driver === undefined || kind === 'switch' ? {} : { [`${prefix}-driver-version`]: fieldText(driver) }),
    [`${prefix}-${firmwareName}-version`]: firmware.toUpperCase(),
    [`${prefix}-attestation-report-cert-chain`]: chainClaims(certificates, revocationChecked, now),
    [`${prefix}-attestation-report-cert-chain-fwid-match`]: true,
    [`${prefix}-attestation-report-parsed`]: true,
    [`${prefix}-attestation-report-nonce-match`]: true,
    [`${prefix}-attestation-report-signature-verified`]: true,
    ...Object.fromEntries(manifests),
    ...(kind === 'gpu' ? { [`${prefix}-vbios-index-no-conflict`]: true } : {}),
    ...(manufacturer?.firmwareManufacturerId === undefined ? {} : { oemid: manufacturer.firmwareManufacturerId }),
    hwmodel: commonName(certificates[1]),
    ueid: BigInt(`0x${certificates[0]?.x509.serialNumber ?? '0'}`).toString(),
  };
}

function oneManifest(
  prefix: string,
  certificates: readonly Certificate[],
  revocationChecked: boolean,
  now: Date,
): JsonObject {
  return {
    [`${prefix}-fetched`]: true,
    [`${prefix}-schema-validated`]: true,
    [`${prefix}-cert-chain`]: chainClaims(certificates, revocationChecked, now),
    [`${prefix}-signature-verified`]: true,
    [`${prefix}-version-match`]: true,
    [`${prefix}-measurements-available`]: true,
  };
}

function chainClaims(certificates: readonly Certificate[], revocationChecked: boolean, now: Date): JsonObject {
  const [first = 0] = certificates.map(({ x509 }) => x509.validToDate.getTime()).sort((a, b) => a - b);
  return {
    'x-nvidia-cert-expiration-date': new Date(first).toISOString().replace(/\.\d+Z$/, 'Z'),
    'x-nvidia-cert-status': first < now.getTime() ? 'expired' : 'valid',
    'x-nvidia-cert-ocsp-status': revocationChecked ? 'good' : null,
    'x-nvidia-cert-revocation-reason': null,
  };
}

function commonName(certificate: Certificate | undefined): string | null {
  return /(?:^|\n)CN=([^\n]+)/.exec(certificate?.x509.subject ?? '')?.[1] ?? null;
}
