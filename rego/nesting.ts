/**
 * Deepest nesting of brackets that a policy may have. regorus' parser tries a comprehension before a literal, so each level
 * of `[[[…` or `{"a":{…` doubles the time to parse (22 levels: seconds), and its execution limit does not run while parsing.
 */
export const maxNestingDepth = 16;

/**
 * The deepest nesting of `(`, `[` and `{` in a Rego text, outside of strings, raw strings and comments. It counts text that
 * does not parse as well: never less than what the parser would meet.
 */
export function nestingDepth(policy: string): number {
  let depth = 0;
  let deepest = 0;
  for (let at = 0; at < policy.length; at++) {
    switch (policy[at]) {
      case '(':
      case '[':
      case '{':
        depth++;
        deepest = Math.max(deepest, depth);
        break;
      case ')':
      case ']':
      case '}':
        depth = Math.max(0, depth - 1);
        break;
      case '"':
        at = endOfString(policy, at);
        break;
      case '`':
        at = endOrRest(policy, policy.indexOf('`', at + 1));
        break;
      case '#':
        at = endOrRest(policy, policy.indexOf('\n', at));
        break;
    }
  }
  return deepest;
}

function endOrRest(policy: string, found: number): number {
  return found < 0 ? policy.length : found;
}

/** Index of the quote that ends the string at `start`; of the line's end where it is never closed, as the lexer sees it. */
function endOfString(policy: string, start: number): number {
  let at = start + 1;
  while (at < policy.length && policy[at] !== '"' && policy[at] !== '\n') at += policy[at] === '\\' ? 2 : 1;
  return at;
}
