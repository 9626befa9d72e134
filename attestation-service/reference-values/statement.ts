import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  parseJson,
  stringMember,
} from '@sealpod/protocol/json';

/** Media type of in-toto statements in DSSE envelopes. */
export const inTotoPayloadType = 'application/vnd.in-toto+json';
/** Type of the statements that are made here. */
export const inTotoStatementType = 'https://in-toto.io/Statement/v1';
const statementTypes = [inTotoStatementType, 'https://in-toto.io/Statement/v0.1'];
/** Type of the predicate that says what measurements a subject has. */
export const referenceValuesPredicate = 'tag:sealpod,2026:reference-values/v1';

/** What a statement says. Whether anybody may say it is not verified. */
export interface ReferenceValueStatement {
  readonly values: JsonObject;
  /** Not before this an older statement can be superseded by it. */
  readonly issuedAt: Date;
  readonly expiresAt?: Date;
  readonly scope?: string;
}

/** One in the form of in-toto, which names what was measured. */
export interface InTotoStatement extends ReferenceValueStatement {
  /** Each as `NAME@ALGORITHM:HEX`. */
  readonly subjects: readonly string[];
}

/**
 * Parses an in-toto statement whose predicate holds reference values:
 * `{"referenceValues": {id: value}, "issuedAt", "expiresAt"?, "scope"?}`, dates in RFC 3339. Subjects name what was
 * measured, e.g. a pod VM image with its digest; there must be one.
 *
 * @throws SealpodError REQUEST_FORMAT, UNSUPPORTED for another payload or predicate
 */
export function parseStatement(payloadType: string, payload: Uint8Array): InTotoStatement {
  if (payloadType !== inTotoPayloadType) throw unsupported('payload type', inTotoPayloadType, payloadType);
  const statement = asJsonObject(parseJson(payload, { what: 'in-toto statement' }), 'in-toto statement');
  const type = stringMember(statement, '_type');
  if (!statementTypes.includes(type)) throw unsupported('statement type', statementTypes.join(' or '), type);
  const predicateType = stringMember(statement, 'predicateType');
  if (predicateType !== referenceValuesPredicate)
    throw unsupported('predicate type', referenceValuesPredicate, predicateType);
  const subjects = subjectsOf(optionalMember(statement, 'subject'));
  const predicate = objectMember(statement, 'predicate');
  const known = ['referenceValues', 'issuedAt', 'expiresAt', 'scope'];
  const unknown = Object.keys(predicate).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new SealpodError('REQUEST_FORMAT', 'the predicate has an unknown member', {
      expected: known.join(', '),
      actual: unknown,
    });
  return {
    subjects,
    values: objectMember(predicate, 'referenceValues'),
    issuedAt: dateOf(stringMember(predicate, 'issuedAt'), 'issuedAt'),
    ...(optionalMember(predicate, 'expiresAt') === undefined
      ? {}
      : { expiresAt: dateOf(stringMember(predicate, 'expiresAt'), 'expiresAt') }),
    ...(optionalMember(predicate, 'scope') === undefined ? {} : { scope: stringMember(predicate, 'scope') }),
  };
}

function subjectsOf(subjects: JsonValue | undefined): string[] {
  if (!Array.isArray(subjects) || subjects.length === 0)
    throw new SealpodError('REQUEST_FORMAT', 'the statement is about no subject');
  return (subjects as readonly JsonValue[]).flatMap((value) => {
    const subject = asJsonObject(value, 'subject');
    const digests = Object.entries(objectMember(subject, 'digest'));
    const hex = digests.every(([, digest]) => typeof digest === 'string' && /^[0-9a-f]+$/i.test(digest));
    if (digests.length === 0 || !hex)
      throw new SealpodError('REQUEST_FORMAT', 'a subject of the statement has no digest');
    const name = optionalMember(subject, 'name') ?? optionalMember(subject, 'uri') ?? '';
    return digests.map(([algorithm, digest]) => `${name}@${algorithm}:${digest}`);
  });
}

/** @throws SealpodError REQUEST_FORMAT */
export function dateOf(text: string, what: string): Date {
  const time = /^\d{4}-\d{2}-\d{2}T/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) {
    throw new SealpodError('REQUEST_FORMAT', `${what} is not a date`, {
      expected: 'RFC 3339',
      actual: text.slice(0, 64),
    });
  }
  return new Date(time);
}

function unsupported(what: string, expected: string, actual: string): SealpodError {
  return new SealpodError('UNSUPPORTED', `unknown ${what} of signed reference values`, {
    expected,
    actual: actual.slice(0, 128),
  });
}
