import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonValue, optionalMember, stringArrayMember, stringMember } from '@sealpod/protocol/json';
import { refuseUnknownMembers } from '../../endorsements/config-members.ts';

/** Configuration of TEE `se`. Files are read when the service starts. */
export interface SeConfig {
  /** Folder of host key documents, one for each machine that may run guests; PEM or DER. */
  readonly hostKeyDocuments: string;
  /** Folder of the certificates of IBM's signing keys and of the authorities above them. */
  readonly certificates: string;
  /** Folder of revocation lists, PEM or DER; one of the signing key is required. */
  readonly revocationLists: string;
  /** The root of these certificates, PEM. */
  readonly rootFile: string;
  /** Images, or their headers, that guests may run. */
  readonly imageHeaders: readonly string[];
  /**
   * An RSA key, PEM, that upstream's verifier seals its challenges with; for sharing sessions with one. Who knows its public
   * half can make evidence; by default challenges are sealed with a secret key instead.
   */
  readonly measurementKeyFile?: string;
}

const code = 'USAGE';

/**
 * Reads `{"hostKeyDocuments", "certificates", "revocationLists", "rootFile", "imageHeaders": [file], "measurementKeyFile"?}`.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readSeConfig(value: JsonValue, at: (path: string) => string): SeConfig {
  const se = asJsonObject(value, 'se', code);
  const paths = ['hostKeyDocuments', 'certificates', 'revocationLists', 'rootFile'] as const;
  refuseUnknownMembers(se, [...paths, 'imageHeaders', 'measurementKeyFile'], 'se');
  const path = (name: (typeof paths)[number]): string => at(stringMember(se, name, code));
  const imageHeaders = stringArrayMember(se, 'imageHeaders', code);
  if (imageHeaders.length === 0) throw new SealpodError(code, 'se.imageHeaders is empty');
  return {
    hostKeyDocuments: path('hostKeyDocuments'),
    certificates: path('certificates'),
    revocationLists: path('revocationLists'),
    rootFile: path('rootFile'),
    imageHeaders: imageHeaders.map(at),
    ...(optionalMember(se, 'measurementKeyFile') === undefined
      ? {}
      : { measurementKeyFile: at(stringMember(se, 'measurementKeyFile', code)) }),
  };
}
