import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from './check.ts';

/**
 * This TEE has no field that binds initdata. Where a guest sends some all the same, it must not pass for verified, as it does
 * where it is ignored.
 */
export function checkUnboundInitdata(digest: Buffer | undefined): Verdict {
  return check('initdata', digest === undefined, 'INITDATA_DIGEST', {
    expected: 'none: nothing in evidence of this TEE binds it',
    actual: digest?.toString('hex') ?? '',
    source: 'initdata',
  });
}
