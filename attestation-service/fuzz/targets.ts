import { existsSync, readFileSync } from 'node:fs';
import { parseCcaToken } from '@sealpod/protocol/cca';
import { parseQuote } from '@sealpod/protocol/dcap';
import { SealpodError } from '@sealpod/protocol/errors';
import { parseEventLog } from '@sealpod/protocol/event-log';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { parseAttest, parsePublicArea, parseQuoteInfo, parseSignature } from '@sealpod/protocol/tpm';
import { parseCertificate } from '../endorsements/certificate.ts';
import { portableTees, verifyEarToken, verifyEvidence } from '../portable/index.ts';
import type { Call } from '../portable/testing/drive.ts';
import { parseVersionedKey } from '../verifiers/snp/versioned-key.ts';
import { mintedParsers } from './minted-parsers.ts';
import { mintedVerifiers } from './minted-verifiers.ts';
import type { Target } from './target.ts';

const base64 = (bytes: Iterable<number> | string | undefined): string =>
  Buffer.from(typeof bytes === 'string' ? Buffer.from(bytes, 'base64') : [...(bytes ?? [])]).toString('base64');
type Members = Readonly<Record<string, never>>;

/** A parser of bytes: returns, or throws a typed error. */
function parser(parse: (bytes: Buffer) => unknown, seed: (evidence: Members) => string | undefined): Target {
  return {
    bytes: true,
    seeds: (calls) =>
      calls.flatMap((call) => {
        const found = 'tee' in call ? seed((call.evidence ?? {}) as Members) : undefined;
        return found === undefined ? [] : [found];
      }),
    run: (input) => {
      parse(Buffer.from(typeof input === 'string' ? input : '', 'base64'));
      return 'OK';
    },
  };
}

/** A parser whose valid inputs are recorded ones. */
function recorded(parse: (bytes: Buffer) => unknown, ...vectors: readonly string[]): Target {
  const files = vectors.map((name) => vectorPath(name)).filter((path) => existsSync(path));
  return { ...parser(parse, () => undefined), seeds: () => files.map((path) => base64(readFileSync(path))) };
}

/** A verifier of a TEE, under the expectations of a minted call. */
function verifier(tee: string): Target {
  const of = (calls: readonly Call[]) => calls.flatMap((call) => ('tee' in call && call.tee === tee ? [call] : []));
  return {
    bytes: false,
    seeds: (calls) => of(calls).map(({ evidence }) => evidence),
    run: async (input, calls) => {
      const [call] = of(calls);
      if (call === undefined) throw new SealpodError('INTERNAL', 'no seed');
      const { snpRoot, tpmRoots, trustedAttestationKeys = [] } = call;
      const options = {
        snp: { allowVersion2: true, ...(snpRoot === undefined ? {} : { root: snpRoot }) },
        tpm: tpmRoots === undefined ? {} : { roots: tpmRoots },
      };
      const expectations = { trustedAttestationKeys, now: new Date(call.now) };
      return (await verifyEvidence(tee, input, expectations, options)).verdict.code;
    },
  };
}

const quote = (evidence: Members, member: string): string | undefined =>
  (evidence['tpm_quote'] as Members | undefined)?.[member];

/** Every target by name. The verifiers of the portable entry point are here by themselves; others mint what they need. */
export const targets: Readonly<Record<string, Target>> = {
  ...Object.fromEntries(portableTees.map((tee) => [tee, verifier(tee)])),
  ...mintedVerifiers,
  ...mintedParsers,
  certificate: parser(parseCertificate, (evidence) => evidence['ek_certificate']),
  'snp-certificate': parser(parseVersionedKey, (evidence) => {
    const [first] = (evidence['cert_chain'] ?? []) as readonly { readonly data: readonly number[] }[];
    return first && base64(first.data);
  }),
  'event-log': parser(
    (bytes) => parseEventLog(bytes, { maxBytes: 512 * 1024 }),
    (evidence) => evidence['event_log'],
  ),
  'tpm-attest': parser(
    (bytes) => parseQuoteInfo(parseAttest(bytes).attested),
    (evidence) => quote(evidence, 'message'),
  ),
  'tpm-public-area': parser(parsePublicArea, (evidence) => evidence['ak_public_area']),
  'tpm-signature': parser(parseSignature, (evidence) => quote(evidence, 'signature')),
  'tdx-quote': recorded(parseQuote, 'tdx/tdx_quote_4.dat', 'tdx/tdx_quote_5.dat'),
  'sgx-quote': recorded(parseQuote, 'sgx/occlum_quote.dat'),
  ccel: recorded((bytes) => parseEventLog(bytes, { padded: true }), 'eventlog/CCEL_data', 'eventlog/CCEL_data_grub'),
  'cca-token': recorded(parseCcaToken, 'cca/cca-example-token.cbor'),
  ear: {
    bytes: false,
    seeds: (calls) => calls.flatMap((call) => ('token' in call ? [call.token] : [])),
    run: async (input, calls) => {
      const call = calls.find((candidate) => 'token' in candidate);
      const jwks = call !== undefined && 'token' in call ? call.jwks : { keys: [] };
      return (await verifyEarToken(input as string, { jwks })).verdict.code;
    },
  },
};
