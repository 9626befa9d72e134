import { readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import { booleanMember, integerMember, type JsonObject, optionalMember, stringMember } from '@sealpod/protocol/json';

const code = 'USAGE';

/** @throws SealpodError USAGE naming the first member that is not `known` */
export function refuseUnknownMembers(object: JsonObject, known: readonly string[], what: string): void {
  const unknown = Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new SealpodError(code, `${what} has an unknown member`, { expected: known.join(', '), actual: unknown });
}

/** `{[name]: boolean}` where the member is there. @throws SealpodError USAGE */
export function optionalFlag<Name extends string>(object: JsonObject, name: Name): { [Key in Name]?: boolean } {
  if (optionalMember(object, name) === undefined) return {};
  return { [name]: booleanMember(object, name, code) } as { [Key in Name]?: boolean };
}

/** `{[name]: text}` where the member is there. @throws SealpodError USAGE */
export function optionalText<Name extends string>(object: JsonObject, name: Name): { [Key in Name]?: string } {
  if (optionalMember(object, name) === undefined) return {};
  return { [name]: stringMember(object, name, code) } as { [Key in Name]?: string };
}

/** `{[name]: number}` where the member is there: a positive integer. @throws SealpodError USAGE */
export function optionalCount<Name extends string>(object: JsonObject, name: Name): { [Key in Name]?: number } {
  if (optionalMember(object, name) === undefined) return {};
  const value = integerMember(object, name, code);
  if (value < 1) throw new SealpodError(code, `${name} must be positive`, { actual: `${value}` });
  return { [name]: value } as { [Key in Name]?: number };
}

/** An absolute URL of http or https. @throws SealpodError USAGE */
export function checkUrl(url: string, what: string): string {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new SealpodError(code, `${what} must be a URL`, { expected: 'https://…', actual: url });
  return url;
}

/** The text of a file that a configuration names. @throws SealpodError USAGE */
export function readConfiguredText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SealpodError(code, `cannot read ${path}`, { cause });
  }
}
