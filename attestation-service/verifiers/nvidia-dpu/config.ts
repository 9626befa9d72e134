import { readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonValue, stringMember } from '@sealpod/protocol/json';
import { optionalCount, refuseUnknownMembers } from '../../endorsements/config-members.ts';
import { enrolRoots } from '../../endorsements/enrolled-roots.ts';
import type { DpuRules } from './index.ts';

/** Configuration of TEEs `nvidia-dpu` and `nvidiadpu`, two names of one. */
export interface DpuConfig {
  /** The manufacturer's root, PEM. */
  readonly rootCertificates: string;
  /** Default 3600. */
  readonly maxCertificateAgeSeconds?: number;
}

/** Reads `{"rootCertificatesFile", "maxCertificateAgeSeconds"?}`. @throws SealpodError USAGE naming the member */
export function readDpuConfig(value: JsonValue, at: (path: string) => string): DpuConfig {
  const dpu = asJsonObject(value, 'nvidiaDpu', 'USAGE');
  refuseUnknownMembers(dpu, ['rootCertificatesFile', 'maxCertificateAgeSeconds'], 'nvidiaDpu');
  const path = at(stringMember(dpu, 'rootCertificatesFile', 'USAGE'));
  try {
    return { rootCertificates: readFileSync(path, 'utf8'), ...optionalCount(dpu, 'maxCertificateAgeSeconds') };
  } catch (cause) {
    if (cause instanceof SealpodError) throw cause;
    throw new SealpodError('USAGE', `cannot read ${path}`, { cause });
  }
}

/** @throws SealpodError USAGE for a file without a self-signed certificate */
export function dpuRules({ rootCertificates, maxCertificateAgeSeconds = 3600 }: DpuConfig): DpuRules {
  const [root] = enrolRoots([{ name: 'NVIDIA DPU', certificates: rootCertificates, simulated: false }]);
  if (root === undefined) throw new SealpodError('USAGE', 'no root of DPUs');
  return { root, maxCertificateAgeSeconds };
}
