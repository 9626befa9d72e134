import { createHash } from 'node:crypto';
import { coseAlgorithmName, verifyCoseSign1 } from '@sealpod/protocol/cose';
import type { JsonObject } from '@sealpod/protocol/json';
import { type NitroDocument, parseNitroEvidence } from '@sealpod/protocol/nitro';
import type { Verdict } from '@sealpod/protocol/verdict';
import { type Certificate, parseCertificate } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import { checkSentChain } from '../certificate-chain.ts';
import { allOf, check } from '../check.ts';
import type { Expectations, Verifier } from '../verifier.ts';

/** What the operator decided about Nitro documents. */
export interface NitroRules {
  readonly root: EnrolledRoot;
  /** Enclaves in debug mode, whose console the host reads, are let through; claims say `debug`. */
  readonly allowDebug: boolean;
}

/** Registers that every document has: image, kernel with boot ramdisk, application. */
const measuredRegisters = [0, 1, 2] as const;
/** The first register that belongs to what runs inside; ours is extended by the digest of the initdata. */
const initDataRegister = 16;
const algorithm = 'ES384';
/** Clocks differ. */
const clockToleranceMs = 300_000;

/**
 * The verifier of TEE `aws-nitro`: attestation documents of the Nitro hypervisor (Nitro Enclaves attestation process; also of
 * NitroTPM, which has other registers and is refused for lack of the enclave's). Upstream has none.
 *
 * Bound by `user_data`, which holds the report data; a `nonce` in the document has to be the session's. Revocation is not
 * checked: the document's certificate lives for hours.
 */
export function nitroVerifier(rules: NitroRules): Verifier {
  return {
    tee: 'aws-nitro',
    verify: (evidence, expectations) => {
      const document = parseNitroEvidence(evidence);
      const leaf = parseCertificate(document.certificate);
      // The bundle begins with the root, a chain with the leaf.
      const chain: readonly [Certificate, ...Certificate[]] = [
        leaf,
        ...document.authorities.map((authority) => parseCertificate(authority)).reverse(),
      ];
      return {
        verdict: verifyNitroDocument(document, chain, rules, expectations),
        claims: nitroClaims(document, expectations),
      };
    },
  };
}

/** Verifies a document: a checklist. */
function verifyNitroDocument(
  document: NitroDocument,
  chain: readonly [Certificate, ...Certificate[]],
  { root, allowDebug }: NitroRules,
  { reportData, nonce, initDataDigest, now }: Expectations,
): Verdict {
  return allOf('aws-nitro evidence', [
    checkSentChain(chain, root, now),
    checkAnchor(chain, root),
    checkSignature(document, chain[0]),
    checkDigest(document),
    checkTime(document, now),
    checkRegisters(document),
    check('debug mode', allowDebug || !isDebug(document), 'EV_DEBUG_ON', {
      expected: 'an enclave that is measured',
      actual: 'registers of zeros: it was started in debug mode',
    }),
    checkReportData(document, reportData),
    checkNonce(document, nonce),
    checkInitData(document, initDataDigest),
  ]);
}

/** Documents bring their root: another one in its place says that the document is of somebody else. */
function checkAnchor(chain: readonly Certificate[], { anchors, name }: EnrolledRoot): Verdict {
  const last = chain.at(-1);
  const known = last !== undefined && anchors.some(({ x509 }) => x509.raw.equals(last.x509.raw));
  return check('root certificate', known, 'EV_CERT_CHAIN', {
    expected: `the root of ${name} first in cabundle`,
    actual: last?.x509.subject.replaceAll('\n', ', ') ?? 'none',
  });
}

function checkSignature({ message }: NitroDocument, { x509 }: Certificate): Verdict {
  const name = coseAlgorithmName(message.algorithm);
  const suitable = name === algorithm && x509.publicKey.asymmetricKeyDetails?.namedCurve === 'secp384r1';
  return check('document signature', suitable && verifyCoseSign1(message, x509.publicKey), 'EV_SIGNATURE', {
    expected: `${algorithm} by the certified key`,
    actual: suitable ? 'it does not verify' : `algorithm ${name}`,
  });
}

function checkDigest({ digest, pcrs }: NitroDocument): Verdict {
  const lengths = [...pcrs.values()].map(({ length }) => length);
  return check('register hash', digest === 'SHA384' && lengths.every((length) => length === 48), 'EV_FORMAT', {
    expected: 'SHA384, 48 bytes each',
    actual: `${digest.slice(0, 32)}, ${lengths.join(' ')} bytes`,
  });
}

function checkTime({ timestamp }: NitroDocument, now: Date): Verdict {
  const age = now.getTime() - timestamp.getTime();
  // The chain holds the document to the hours of its certificate; the nonce to its session.
  return check('timestamp', age > -clockToleranceMs, 'EV_FORMAT', {
    expected: `before ${now.toISOString()}`,
    actual: Number.isNaN(age) ? 'no date' : timestamp.toISOString(),
  });
}

function checkRegisters({ pcrs }: NitroDocument): Verdict {
  const missing = measuredRegisters.filter((number) => !pcrs.has(number));
  return check('registers', missing.length === 0, 'EV_FORMAT', {
    expected: 'PCR0, PCR1 and PCR2',
    actual: `without ${missing.map((number) => `PCR${number}`).join(', ')}`,
  });
}

function isDebug({ pcrs }: NitroDocument): boolean {
  return measuredRegisters.some((number) => pcrs.get(number)?.every((byte) => byte === 0) === true);
}

function checkReportData({ userData }: NitroDocument, expected: Buffer | undefined): Verdict {
  return check('report data', expected === undefined || userData?.equals(expected) === true, 'EV_BINDING_MISMATCH', {
    expected: expected?.toString('hex') ?? '',
    actual: userData?.toString('hex') ?? 'no user_data',
    source: 'digest of nonce and tee-pubkey',
  });
}

/** The session's nonce as its text, or as what the text encodes. One of no bytes is none: some libraries write it so. */
function checkNonce({ nonce }: NitroDocument, expected: string | undefined): Verdict {
  const right = expected === undefined ? [] : [Buffer.from(expected), Buffer.from(expected, 'base64')];
  const holds =
    nonce === undefined || nonce.length === 0 || expected === undefined || right.some((bytes) => bytes.equals(nonce));
  return check('nonce', holds, 'EV_NONCE_MISMATCH', {
    expected: expected ?? '',
    actual: nonce?.toString('hex') ?? '',
    source: 'session',
  });
}

/** A register extended once, from zeros. */
function checkInitData({ pcrs }: NitroDocument, digest: Buffer | undefined): Verdict {
  const expected = digest && createHash('sha384').update(Buffer.alloc(48)).update(digest).digest();
  const register = pcrs.get(initDataRegister);
  return check('initdata', expected === undefined || register?.equals(expected) === true, 'INITDATA_DIGEST', {
    expected: expected?.toString('hex') ?? '',
    actual: register?.toString('hex') ?? `no PCR${initDataRegister}`,
    source: 'initdata',
  });
}

function nitroClaims(document: NitroDocument, { initDataDigest }: Expectations): JsonObject {
  const { moduleId, digest, timestamp, pcrs, publicKey, userData, nonce } = document;
  const hexadecimal = (bytes: Buffer | undefined): string | null => bytes?.toString('hex') ?? null;
  return {
    module_id: moduleId,
    digest,
    timestamp: timestamp.getTime(),
    debug: isDebug(document),
    ...Object.fromEntries([...pcrs].map(([number, register]) => [`pcr${number}`, register.toString('hex')])),
    public_key: hexadecimal(publicKey),
    nonce: hexadecimal(nonce),
    report_data: userData?.toString('hex') ?? '',
    ...(initDataDigest === undefined ? {} : { init_data: pcrs.get(initDataRegister)?.toString('hex') ?? '' }),
  };
}
