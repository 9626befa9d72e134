import { type KeyObject, verify } from 'node:crypto';
import {
  type NvidiaArchitecture,
  type NvidiaReport,
  OpaqueType,
  spdmCodes,
  spdmVersion,
} from '@sealpod/protocol/nvidia';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Certificate } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import type { FirmwareId } from '../../endorsements/dice.ts';
import { checkSentChain } from '../certificate-chain.ts';
import { allOf, check } from '../check.ts';
import type { Expectations } from '../verifier.ts';

/** What one device sent, completely parsed. Nothing is verified. */
export interface DeviceStatement {
  readonly architecture: NvidiaArchitecture;
  readonly uuid: string;
  readonly report: NvidiaReport;
  /** As sent, leaf first. */
  readonly certificates: readonly Certificate[];
  /** Of the leaf; undefined where it attests none. */
  readonly firmwareIds: readonly FirmwareId[] | undefined;
}

const nonceBytes = 32;
const allMeasurements = 0xff;

/** Verifies a device by what it sent alone: a checklist. Reference manifests and revocation come after. */
export function verifyDevice(
  statement: DeviceStatement,
  root: EnrolledRoot,
  { reportData, now }: Pick<Expectations, 'reportData' | 'now'>,
): Verdict {
  return allOf(`nvidia device ${statement.uuid}`, [
    checkMessages(statement.report),
    checkVersions(statement),
    checkOpaqueVersion(statement.report),
    checkSentChain(statement.certificates, root, now),
    checkArchitecture(statement),
    checkFirmwareId(statement),
    checkSignature(statement),
    checkNonce(statement.report, reportData),
  ]);
}

/** The device was asked for all measurements, with a signature, and answered that. */
function checkMessages({ request, response }: NvidiaReport): Verdict {
  const holds =
    request.version === spdmVersion &&
    response.version === spdmVersion &&
    request.code === spdmCodes.getMeasurements &&
    response.code === spdmCodes.measurements &&
    (request.attributes & 1) === 1 &&
    request.operation === allMeasurements &&
    request.slot === response.slot &&
    response.measurements.size > 0;
  return check('SPDM messages', holds, 'EV_FORMAT', {
    expected: 'a signed answer of SPDM 1.1 to GET_MEASUREMENTS for all measurements',
    actual: `request ${[request.version, request.code, request.attributes, request.operation, request.slot].join(' ')}, response ${[response.version, response.code, response.slot].join(' ')}, ${response.measurements.size} measurements`,
  });
}

function checkVersions({ architecture, report }: DeviceStatement): Verdict {
  const { fields } = report.response.opaqueData;
  const needed =
    architecture === 'LS10' ? [OpaqueType.vbiosVersion] : [OpaqueType.vbiosVersion, OpaqueType.driverVersion];
  return check(
    'versions',
    needed.every((type) => (fields.get(type)?.value.length ?? 0) > 0),
    'EV_FORMAT',
    {
      expected: 'the versions of firmware and, of a GPU, of the driver',
      actual: [...fields.values()].map(({ name }) => name).join(', ') || 'no opaque data',
    },
  );
}

/** The last major version of opaque data whose fields are known to mean what they are read as (NVIDIA's attestation SDK). */
const lastOpaqueVersion = 2;

/** Of the header, or where there is none of a field; devices before that field tell no version. */
function checkOpaqueVersion({ response: { opaqueData } }: NvidiaReport): Verdict {
  const told = opaqueData.fields.get(OpaqueType.opaqueDataVersion)?.value ?? Buffer.alloc(1);
  const [first = 0, ...rest] = told;
  const version = opaqueData.headerVersion ?? (rest.some((byte) => byte !== 0) ? Number.POSITIVE_INFINITY : first);
  return check('version of the opaque data', version <= lastOpaqueVersion, 'EV_FORMAT', {
    expected: `at most ${lastOpaqueVersion}`,
    actual: opaqueData.headerVersion === undefined ? told.toString('hex') : `${version}`,
  });
}

/** Names of the chips whose keys sign reports. */
const chips: Readonly<Record<NvidiaArchitecture, RegExp>> = {
  HOPPER: /(?:^|\n)CN=GH\d+ /,
  BLACKWELL: /(?:^|\n)CN=GB\d+ /,
  LS10: /(?:^|\n)CN=LS_?10 /,
};

function checkArchitecture({ architecture, certificates }: DeviceStatement): Verdict {
  const subject = certificates[0]?.x509.subject ?? '';
  return check('architecture', chips[architecture].test(subject), 'EV_PART_MIX', {
    expected: `the key of a device of architecture ${architecture}`,
    actual: subject.replaceAll('\n', ', '),
    source: 'certificate of the signing key',
  });
}

/**
 * The firmware that measured is the one that the key was made for. A switch does not tell its firmware's identity; a GPU that
 * does not tell it is refused.
 */
function checkFirmwareId({ architecture, report, firmwareIds }: DeviceStatement): Verdict {
  const told = report.response.opaqueData.fields.get(OpaqueType.fwid)?.value;
  const [certified] = firmwareIds ?? [];
  const holds = told === undefined ? architecture === 'LS10' : certified?.digest.equals(told) === true;
  return check('firmware identity', holds, 'EV_PART_MIX', {
    expected: certified?.digest.toString('hex') ?? 'a firmware identity in the certificate',
    actual: told?.toString('hex') ?? 'none in the report',
    source: 'certificate of the signing key',
  });
}

function checkSignature({ report, certificates }: DeviceStatement): Verdict {
  const key = certificates[0]?.x509.publicKey;
  return check(
    'report signature',
    key !== undefined && isSigned(report.signed, report.signature, key),
    'EV_SIGNATURE',
    {
      expected: 'ECDSA P-384 with SHA-384 by the certified key',
      actual: 'it does not verify',
    },
  );
}

/** ECDSA with P-384 and SHA-384, R and S one after the other. */
export function isSigned(signed: Buffer, signature: Buffer, key: KeyObject): boolean {
  return (
    key.asymmetricKeyDetails?.namedCurve === 'secp384r1' &&
    verify('sha384', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)
  );
}

function checkNonce({ request }: NvidiaReport, reportData: Buffer | undefined): Verdict {
  const nonce = reportData && regularise(reportData, nonceBytes);
  return check('nonce', nonce?.equals(request.nonce) === true, 'EV_BINDING_MISMATCH', {
    expected: nonce?.toString('hex') ?? 'runtime data to bind the report to',
    actual: request.nonce.toString('hex'),
    source: 'digest of nonce and tee-pubkey',
  });
}

/** Each device once: a report that stands twice would make one device two. */
export function checkDistinct(statements: readonly DeviceStatement[]): Verdict {
  const keys = statements.map(({ certificates }) => certificates[0]?.x509.fingerprint256 ?? '');
  const twice = keys.find((key, index) => keys.indexOf(key) !== index);
  return check('distinct devices', twice === undefined, 'EV_PART_MIX', {
    expected: 'each device once',
    actual: `twice the device of key ${twice}`,
  });
}
