import type { SealpodError } from '@sealpod/protocol/errors';
import { asSealpodError, SealpodError as Failure } from '@sealpod/protocol/errors';
import { type NvidiaArchitecture, type NvidiaReport, OpaqueType } from '@sealpod/protocol/nvidia';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import type { ManifestSource } from '../../endorsements/nvidia/manifests.ts';
import { checkSentChain } from '../certificate-chain.ts';
import { allOf, check } from '../check.ts';
import { fieldText, firmwareVersion } from './claims.ts';
import { type ReferenceManifest, readReferenceManifest } from './reference-manifest.ts';

/** A manifest that a report is held against. */
export interface WantedManifest {
  /** `driver` of a GPU; `vbios` is the firmware of a GPU or a switch. */
  readonly kind: 'driver' | 'vbios';
  readonly id: string;
  /** What the device says it runs. */
  readonly version: string;
}

/** A manifest whose signature verified, or why there is none. */
export interface FoundManifest extends WantedManifest {
  readonly manifest?: ReferenceManifest;
  readonly problem?: SealpodError;
}

/** Project, SKU and chip of the one switch that there is; its report does not tell them (NVIDIA's attestation SDK). */
const switchBoard = '5612_0002_890';

/**
 * Which manifests are about a device, named as NVIDIA's RIM service names them.
 *
 * @throws SealpodError EV_FORMAT where a field that names them is absent, or no name
 */
export function wantedManifests(architecture: NvidiaArchitecture, { response }: NvidiaReport): WantedManifest[] {
  const { fields } = response.opaqueData;
  const text = (type: number): string => {
    const field = fields.get(type);
    return field === undefined ? '' : fieldText(field).trim();
  };
  const firmware = firmwareVersion(fields.get(OpaqueType.vbiosVersion)?.value ?? Buffer.alloc(0), architecture);
  const packed = firmware.replaceAll('.', '').toUpperCase();
  const wanted = (kind: WantedManifest['kind'], id: string, version: string): WantedManifest => {
    // The name becomes part of a path: nothing of the guest's may lead elsewhere.
    if (!/^[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*$/.test(id) || /_(?:_|$)/.test(id))
      throw new Failure('EV_FORMAT', 'a report does not tell what its manifest is named by', {
        actual: id.slice(0, 128),
      });
    return { kind, id, version };
  };
  if (architecture === 'LS10') return [wanted('vbios', `NV_SWITCH_BIOS_${switchBoard}_${packed}`, firmware)];
  const driver = text(OpaqueType.driverVersion);
  const product =
    architecture === 'HOPPER' ? 'NV_GPU_DRIVER_GH100' : `NV_GPU_CC_DRIVER_${text(OpaqueType.chipInfo) || 'GB100'}`;
  const board = [OpaqueType.project, OpaqueType.projectSku, OpaqueType.chipSku].map(text).join('_').toUpperCase();
  return [
    wanted('driver', `${product}_${driver}`, driver),
    wanted('vbios', `NV_GPU_VBIOS_${board}_${packed}`, firmware),
  ];
}

/** Asks the sources in their order. What they do not answer is a problem for the verdict, not an exception. */
export async function findManifest(wanted: WantedManifest, sources: readonly ManifestSource[]): Promise<FoundManifest> {
  let problem = new Failure('EV_COLLATERAL_UNAVAILABLE', 'no source has the reference manifest', {
    expected: `one of: ${sources.map(({ name }) => name).join(', ')}`,
    actual: wanted.id,
  });
  for (const source of sources) {
    try {
      const bytes = await source.manifest(wanted.id);
      if (bytes !== undefined) return { ...wanted, manifest: readReferenceManifest(bytes.toString('utf8')) };
    } catch (thrown) {
      problem = asSealpodError(thrown);
    }
  }
  return { ...wanted, problem };
}

/** What the operator decided about manifests. */
export interface ManifestRules {
  readonly root: EnrolledRoot;
  /** NVIDIA does not sign every manifest anew before its signer's certificate ends. */
  readonly acceptExpiredSigners: boolean;
}

/** Verifies manifests, and holds a device's measurements against them. */
export function verifyManifests(
  report: NvidiaReport,
  found: readonly FoundManifest[],
  { root, acceptExpiredSigners }: ManifestRules,
  now: Date,
): Verdict {
  return allOf('reference manifests', [
    ...found.flatMap(({ kind, id, version, manifest, problem }) =>
      manifest === undefined
        ? [missing(kind, id, problem)]
        : [
            allOf(`${kind} manifest ${id}`, [
              checkSentChain(manifest.certificates, root, acceptExpiredSigners ? withinValidity(manifest, now) : now),
              check('version', manifest.version.toLowerCase() === version.toLowerCase(), 'RV_MISMATCH', {
                expected: manifest.version,
                actual: version,
                source: id,
              }),
              check('measurements', manifest.measurements.length > 0, 'EV_FORMAT', {
                expected: 'a measurement to compare with',
                actual: 'none',
                source: id,
              }),
            ]),
          ],
    ),
    checkIndices(found),
    ...compare(report, found),
    ...compareVersions(report, found),
  ]);
}

/** The latest time at which none of the signer's certificates had expired, if that is past. */
export function withinValidity({ certificates }: ReferenceManifest, now: Date): Date {
  return new Date(Math.min(now.getTime(), ...certificates.map(({ x509 }) => x509.validToDate.getTime())));
}

function missing(kind: string, id: string, problem: SealpodError | undefined): Verdict {
  return check(`${kind} manifest`, false, problem?.code ?? 'EV_COLLATERAL_UNAVAILABLE', {
    ...problem?.detail,
    expected: problem?.detail.expected ?? id,
    actual: `${problem?.message ?? 'none'}${problem?.detail.actual === undefined ? '' : `: ${problem.detail.actual}`}`,
    source: id,
  });
}

/** An index is the driver's or the firmware's: two manifests must not both speak of it, nor of a field. */
function checkIndices(found: readonly FoundManifest[]): Verdict {
  const named = found.flatMap(({ manifest }) => [
    ...(manifest?.measurements ?? []).map(({ index }) => `measurement ${index}`),
    ...(manifest?.versions ?? []).map(({ type }) => `field ${type}`),
  ]);
  const twice = named.find((name, position) => named.indexOf(name) !== position);
  return check('measurement indices', twice === undefined, 'RV_MISMATCH', {
    expected: 'each measurement in one manifest',
    actual: `${twice} in two`,
  });
}

/** The measurement of video decoder 0 does not count where the decoder is fused off. */
const decoderMeasurement = 36;
const decoderDisabled = 0x55;

function compare({ response }: NvidiaReport, found: readonly FoundManifest[]): Verdict[] {
  const decoder = response.opaqueData.fields.get(OpaqueType.nvdec0Status)?.value[0];
  return found.flatMap(({ id, manifest }) =>
    (manifest?.measurements ?? [])
      .filter(({ index }) => index !== decoderMeasurement || decoder !== decoderDisabled)
      .map(({ index, name, values }) => {
        const measured = response.measurements.get(index)?.value;
        const holds = measured !== undefined && values.some((value) => value.equals(measured));
        return check(`measurement ${index} (${name})`, holds, 'RV_MISMATCH', {
          expected: values.map((value) => value.toString('hex')).join(' or '),
          actual: measured?.toString('hex') ?? 'not measured',
          source: id,
        });
      }),
  );
}

/** Kind of a value that is a security version; two bytes, little-endian. Only opaque data with a header tell kinds. */
const securityVersionKind = 0x87;

/** A field that is absent, or of another kind, is below every version: firmware that does not tell it may be older than any. */
function compareVersions({ response }: NvidiaReport, found: readonly FoundManifest[]): Verdict[] {
  return found.flatMap(({ id, manifest }) =>
    (manifest?.versions ?? []).map(({ type, name, least }) => {
      const field = response.opaqueData.fields.get(type);
      const told = field?.valueType === securityVersionKind && field.value.length === 2;
      const version = told ? field.value.readUInt16LE(0) : undefined;
      return check(`security version ${name}`, version !== undefined && version >= least, 'RV_MISMATCH', {
        expected: `at least ${least} in field ${type} of the opaque data`,
        actual: version === undefined ? 'no such version' : `${version}`,
        source: id,
      });
    }),
  );
}
