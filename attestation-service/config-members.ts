import { SealpodError } from '@sealpod/protocol/errors';
import { type JsonObject, optionalMember, stringMember } from '@sealpod/protocol/json';

/** Refuses members that nothing reads: a misspelt one would silently not hold. @throws SealpodError USAGE */
export function refuseUnknown(object: JsonObject, known: readonly string[], what: string): void {
  const unknown = Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new SealpodError('USAGE', `${what} has an unknown member`, { expected: known.join(', '), actual: unknown });
}

/** The member `url` where there is one. @throws SealpodError USAGE for what is no HTTP URL */
export function optionalUrl(object: JsonObject, what: string): string | undefined {
  if (optionalMember(object, 'url') === undefined) return undefined;
  const url = stringMember(object, 'url', 'USAGE');
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new SealpodError('USAGE', `${what} must be a URL`, { expected: 'https://…', actual: url });
  return url;
}
