import type { CcaComponent, CcaToken } from '@sealpod/protocol/cca';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';
import type { CcaStores, ComponentReference, PlatformReference } from './stores.ts';

/** What the reference values say of a realm. Its measurements are for policies to decide on. */
export type RealmAppraisal = 'approved-runtime' | 'approved-boot' | 'contraindicated-runtime' | 'unrecognized';

/** The platform is of a known implementation and in one of the states that its reference values name. */
export function checkPlatformState({ platform }: CcaToken, { platforms }: CcaStores): Verdict {
  const name = 'platform firmware and configuration';
  const source = 'reference-value store';
  const known = platforms.filter(({ implementationId }) => implementationId.equals(platform.implementationId));
  if (known.length === 0) {
    return check(name, false, 'RV_NOT_LOADED', {
      expected: 'reference values of the implementation',
      actual: platform.implementationId.toString('hex'),
      source,
    });
  }
  const differences = known.map((reference) => difference(platform.components, platform.configuration, reference));
  const matches = differences.includes(undefined);
  return check(name, matches, 'RV_MISMATCH', {
    expected: `one of ${known.length} known states`,
    actual: differences.find((text) => text !== undefined) ?? '',
    source,
  });
}

/** As upstream appraises a realm whose platform is known (rust-ccatoken). */
export function appraiseRealm({ realm }: CcaToken, { realms }: CcaStores): RealmAppraisal {
  const known = realms.filter(({ initialMeasurement }) => initialMeasurement.equals(realm.initialMeasurement));
  if (known.length === 0) return 'unrecognized';
  for (const { extensibleMeasurements: wanted } of known) {
    if (wanted === undefined) return 'approved-boot';
    const actual = realm.extensibleMeasurements;
    if (wanted.length === actual.length && wanted.every((value, index) => actual[index]?.equals(value)))
      return 'approved-runtime';
  }
  return 'contraindicated-runtime';
}

/** What is wrong, in words; undefined where nothing is. Each component matches one reference and each reference one component. */
function difference(
  components: readonly CcaComponent[],
  configuration: Buffer,
  reference: PlatformReference,
): string | undefined {
  if (!reference.configuration.equals(configuration)) return `configuration ${configuration.toString('hex')}`;
  const left = [...reference.components];
  for (const component of components) {
    const at = left.findIndex((candidate) => matches(component, candidate));
    if (at < 0) return `component ${component.type ?? '?'} measures ${component.measurement.toString('hex')}`;
    left.splice(at, 1);
  }
  const [missing] = left;
  return missing === undefined
    ? undefined
    : `component ${missing.type ?? missing.measurement.toString('hex')} is missing`;
}

function matches(component: CcaComponent, reference: ComponentReference): boolean {
  return (
    reference.measurement.equals(component.measurement) &&
    reference.signer.equals(component.signer) &&
    (reference.type === undefined || reference.type === component.type) &&
    (reference.version === undefined || reference.version === component.version)
  );
}
