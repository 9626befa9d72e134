import { createHash, verify } from 'node:crypto';
import { type DpuEvidence, parseDpuEvidence } from '@sealpod/protocol/nvidia-dpu';
import type { TeeName } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { type Certificate, parseCertificate } from '../../endorsements/certificate.ts';
import { type EnrolledRoot, findPath } from '../../endorsements/certificate-path.ts';
import { type FirmwareId, firmwareIds } from '../../endorsements/dice.ts';
import { allOf, check } from '../check.ts';
import type { Expectations, Verifier } from '../verifier.ts';

/** What the operator decided about DPUs. */
export interface DpuRules {
  /** The manufacturer's root. */
  readonly root: EnrolledRoot;
  /** How long after its beginning the certificate of the signing key may be used. */
  readonly maxCertificateAgeSeconds: number;
}

const curve = 'secp384r1';

/**
 * The verifier of BlueField DPUs (trustee: nvidia_dpu): a DICE chain of the device's certificate and the certificate that it made
 * for the signing key, which signs the report data. Nothing binds initdata, so that a request which names it is refused.
 */
export function dpuVerifier(tee: TeeName, rules: DpuRules): Verifier {
  return {
    tee,
    verify: (evidence, expectations) => {
      const dpu = parseDpuEvidence(evidence);
      const device = parseCertificate(dpu.deviceIdCertificate);
      const alias = parseCertificate(dpu.aliasCertificate);
      const layers = firmwareIds(device) ?? [];
      return {
        verdict: allOf(`${tee} evidence`, [
          checkDevice(device, rules.root, expectations.now),
          checkAlias(alias, device),
          checkAge(alias, rules, expectations.now),
          checkSignature(dpu, alias, expectations),
          check('initdata', expectations.initDataDigest === undefined, 'INITDATA_DIGEST', {
            expected: 'evidence that binds the initdata',
            actual: 'nothing in the evidence of a DPU does',
          }),
        ]),
        claims: {
          device_serial: serial(device),
          device_class: commonName(device),
          firmware_layers_count: layers.length,
          accumulated_fwid: accumulated(layers),
          alias_timestamp: Math.floor(alias.x509.validFromDate.getTime() / 1000),
          ...(expectations.reportData === undefined ? {} : { session_nonce: expectations.reportData.toString('hex') }),
          sealpod: {
            architecture: dpu.architecture,
            firmware_ids: layers.map(({ digest }) => digest.toString('hex')),
          },
        },
      };
    },
  };
}

function checkDevice(device: Certificate, root: EnrolledRoot, now: Date): Verdict {
  const result = findPath(device, root, now);
  return check('certificate of the device', result.valid && usesCurve(device), 'EV_CERT_CHAIN', {
    expected: `a valid path to the root of ${root.name}, and a key on P-384`,
    actual: result.valid ? 'a key of another kind' : result.reason,
    source: root.name,
  });
}

/** DICE devices do not set the flag of an authority in their own certificate, so that no ordinary path leads through it. */
function checkAlias(alias: Certificate, device: Certificate): Verdict {
  const issued = alias.x509.checkIssued(device.x509) || alias.x509.issuer === device.x509.subject;
  const holds = issued && usesCurve(device) && usesCurve(alias) && alias.x509.verify(device.x509.publicKey);
  return check('certificate of the signing key', holds, 'EV_CERT_CHAIN', {
    expected: 'issued by the device, on P-384',
    actual: issued ? 'its signature does not verify' : `issued by ${alias.x509.issuer.replaceAll('\n', ', ')}`,
    source: 'certificate of the device',
  });
}

function checkAge(alias: Certificate, { maxCertificateAgeSeconds }: DpuRules, now: Date): Verdict {
  const age = Math.floor((now.getTime() - alias.x509.validFromDate.getTime()) / 1000);
  const holds = age >= 0 && age <= maxCertificateAgeSeconds && now <= alias.x509.validToDate;
  return check('age of the signing key', holds, 'EV_COLLATERAL_EXPIRED', {
    expected: `0 to ${maxCertificateAgeSeconds} seconds, within its dates`,
    actual: `${age} seconds`,
  });
}

/** DER, or R and S: upstream takes either. Unlike upstream, without report data there is nothing to accept. */
function checkSignature(dpu: DpuEvidence, alias: Certificate, { reportData }: Expectations): Verdict {
  const key = alias.x509.publicKey;
  const verifies = (dsaEncoding: 'der' | 'ieee-p1363'): boolean =>
    reportData !== undefined && verify('sha384', reportData, { key, dsaEncoding }, dpu.reportDataSignature);
  const holds = usesCurve(alias) && (verifies('der') || verifies('ieee-p1363'));
  return check('signature of the report data', holds, 'EV_BINDING_MISMATCH', {
    expected: 'ECDSA P-384 with SHA-384 over the report data by the certified key',
    actual: reportData === undefined ? 'no runtime data to bind to' : 'it does not verify',
    source: 'digest of nonce and tee-pubkey',
  });
}

function usesCurve({ x509 }: Certificate): boolean {
  return x509.publicKey.asymmetricKeyDetails?.namedCurve === curve;
}

/** As upstream writes it: hexadecimal of the number, so without zeros before it. */
function serial({ x509 }: Certificate): string {
  return x509.serialNumber.toLowerCase().replace(/^0+(?=.)/, '');
}

function commonName({ x509 }: Certificate): string {
  return /(?:^|\n)CN=([^\n]+)/.exec(x509.subject)?.[1] ?? 'unknown';
}

function accumulated(layers: readonly FirmwareId[]): string {
  const hash = createHash('sha384');
  for (const { digest } of layers) hash.update(digest);
  return hash.digest('hex');
}
