import { asJsonObject, type JsonValue } from '@sealpod/protocol/json';
import { optionalFlag, refuseUnknownMembers } from '../../endorsements/config-members.ts';

/** Configuration of TEE `aws-nitro`. */
export interface NitroConfig {
  /** Lets enclaves in debug mode through, whose registers are zeros; claims then say `debug`. Default false. */
  readonly allowDebug?: boolean;
}

/** Reads `{"allowDebug"?}`. @throws SealpodError USAGE naming the member */
export function readNitroConfig(value: JsonValue): NitroConfig {
  const nitro = asJsonObject(value, 'nitro', 'USAGE');
  refuseUnknownMembers(nitro, ['allowDebug'], 'nitro');
  return optionalFlag(nitro, 'allowDebug');
}
