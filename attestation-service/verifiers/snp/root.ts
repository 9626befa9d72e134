import type { SnpGeneration } from '@sealpod/protocol/snp';
import { amdCertificates } from '../../endorsements/amd/certificates.ts';
import { parseCertificate } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';

const roots = new Map<SnpGeneration, EnrolledRoot>();

/** AMD's root of a generation, with its intermediates. */
export function amdRoot(generation: SnpGeneration): EnrolledRoot {
  const known = roots.get(generation);
  if (known !== undefined) return known;
  const { ark, ask, asvk } = amdCertificates[generation];
  const parse = (base64: string) => parseCertificate(Buffer.from(base64, 'base64'));
  const root = {
    name: `AMD ${generation}`,
    simulated: false,
    anchors: [parse(ark)],
    intermediates: [parse(ask), parse(asvk)],
  };
  roots.set(generation, root);
  return root;
}
