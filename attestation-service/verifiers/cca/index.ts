import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type CcaToken, parseCcaEvidence } from '@sealpod/protocol/cca';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, parseJson } from '@sealpod/protocol/json';
import { type VeraisonService, veraisonService } from '../../endorsements/veraison/client.ts';
import { allOf } from '../check.ts';
import type { Expectations, Verification, Verifier } from '../verifier.ts';
import { appraiseRealm, checkPlatformState } from './appraise.ts';
import { ccaClaims } from './claims.ts';
import type { CcaConfig } from './config.ts';
import { type CcaStores, fileStores } from './stores.ts';
import { appraiseByService, readResultKeys, type ServiceAppraisal } from './veraison.ts';
import { type CcaRules, checkPlatformKey, checkToken } from './verify.ts';

/** Who knows platforms: stores here, or a service. */
export type CcaPlatforms =
  | { readonly stores: () => CcaStores }
  | { readonly service: VeraisonService; readonly keys?: readonly KeyObject[] };

/**
 * The platforms that a configuration names.
 *
 * @throws SealpodError USAGE for a file that cannot be read
 */
export function ccaPlatforms({ platforms }: CcaConfig): CcaPlatforms {
  if (platforms.type === 'local')
    return { stores: fileStores(platforms.trustAnchorFile, platforms.referenceValueFile) };
  const { url, authoritiesFile, keysFile } = platforms;
  const options = authoritiesFile === undefined ? {} : { authorities: read(authoritiesFile) };
  return {
    service: veraisonService(url, options),
    ...(keysFile === undefined
      ? {}
      : {
          keys: readResultKeys(
            asJsonObject(parseJson(read(keysFile), { what: keysFile, code: 'USAGE' }), keysFile, 'USAGE'),
          ),
        }),
  };
}

/** The rules of a configuration. */
export function ccaRules({ allowNonCcaDebug = false }: CcaConfig): CcaRules {
  return { allowNonCcaDebug };
}

/** The verifier of TEE `cca`. */
export function ccaVerifier(rules: CcaRules, platforms: CcaPlatforms): Verifier {
  return {
    tee: 'cca',
    verify: async (evidence, expectations) => verifyToken(parseCcaEvidence(evidence), rules, platforms, expectations),
  };
}

async function verifyToken(
  token: CcaToken,
  rules: CcaRules,
  platforms: CcaPlatforms,
  expectations: Expectations,
): Promise<Verification> {
  const own = checkToken(token, rules, expectations);
  const { checks, details } =
    'stores' in platforms
      ? appraiseByStores(token, platforms.stores)
      : // What does not hold by itself is not sent anywhere.
        own.some(({ code }) => code !== 'OK')
        ? { checks: [], details: {} }
        : await appraiseByService(token, platforms.service, platforms.keys, expectations);
  return { verdict: allOf('cca evidence', [...checks, ...own]), claims: ccaClaims(token, details) };
}

function appraiseByStores(token: CcaToken, open: () => CcaStores): ServiceAppraisal {
  try {
    const stores = open();
    return {
      checks: [...checkPlatformKey(token, stores.anchors), checkPlatformState(token, stores)],
      details: { appraised_by: 'stores', realm_appraisal: appraiseRealm(token, stores) },
    };
  } catch (thrown) {
    const { code, message, detail } = asSealpodError(thrown);
    return { checks: [{ check: 'stores of platforms', code, actual: message, ...detail }], details: {} };
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SealpodError('USAGE', `cannot read ${path}`, { cause });
  }
}
