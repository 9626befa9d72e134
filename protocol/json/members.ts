import { SealpodError } from '../errors.ts';
import type { ReasonCode } from '../reason-codes.ts';
import type { JsonObject, JsonValue } from './parse.ts';

/** Readers of typed members: each throws SealpodError with `code` (REQUEST_FORMAT by default) naming the member. */

/** `value` as an object (not an array, not null). */
export function asJsonObject(value: JsonValue | undefined, what: string, code?: ReasonCode): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrongType(what, 'an object', value, code);
  return value as JsonObject;
}

/** `value` as a string. */
export function asJsonText(value: JsonValue | undefined, what: string, code?: ReasonCode): string {
  if (typeof value !== 'string') throw wrongType(what, 'a string', value, code);
  return value;
}

/** The own member `name`, or undefined where it is absent. */
export function optionalMember(object: JsonObject, name: string): JsonValue | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** The string member `name`. */
export function stringMember(object: JsonObject, name: string, code?: ReasonCode): string {
  return asJsonText(optionalMember(object, name), name, code);
}

/** The object member `name`. */
export function objectMember(object: JsonObject, name: string, code?: ReasonCode): JsonObject {
  return asJsonObject(optionalMember(object, name), name, code);
}

/** The boolean member `name`. */
export function booleanMember(object: JsonObject, name: string, code?: ReasonCode): boolean {
  const value = optionalMember(object, name);
  if (typeof value !== 'boolean') throw wrongType(name, 'a boolean', value, code);
  return value;
}

/** The member `name`, an integer that a double holds exactly. */
export function integerMember(object: JsonObject, name: string, code?: ReasonCode): number {
  const value = optionalMember(object, name);
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw wrongType(name, 'an integer', value, code);
  return value;
}

/** The member `name`, an array of strings. */
export function stringArrayMember(object: JsonObject, name: string, code?: ReasonCode): readonly string[] {
  const value = optionalMember(object, name);
  if (!Array.isArray(value)) throw wrongType(name, 'an array of strings', value, code);
  return value.map((item: JsonValue, index) => asJsonText(item, `${name}[${index}]`, code));
}

function wrongType(what: string, expected: string, value: JsonValue | undefined, code?: ReasonCode): SealpodError {
  const actual =
    value === undefined ? 'absent' : value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  return new SealpodError(code ?? 'REQUEST_FORMAT', `${what} must be ${expected}`, { expected, actual });
}
