import type { JsonValue } from '@sealpod/protocol/json';
import { type Condition, isMembers, type Node, orderedMembers, When } from './nodes.ts';

/** JSON as Go's encoder writes it: members sorted, no spaces, and what HTML would misread escaped. */
export function goJson(value: JsonValue | undefined): string {
  const text = JSON.stringify(sorted(value)) ?? 'null';
  return text.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function sorted(value: JsonValue | undefined): JsonValue | undefined {
  if (Array.isArray(value)) return value.map((item) => sorted(item) as JsonValue);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([name, member]) => [name, sorted(member) as JsonValue]));
}

/**
 * The lines of a JSON document with holes.
 *
 * @param print the text of a hole
 * @param choose whether a condition holds; or the lines that decide it later, around the lines of both cases
 */
export function jsonLines(
  node: Node,
  print: (leaf: Node) => string,
  choose: (
    condition: Condition,
  ) => boolean | { readonly before: string; readonly between: string; readonly after: string },
): string[] {
  if (!isMembers(node)) return [typeof node === 'object' ? print(node) : JSON.stringify(node)];
  const { always, conditional } = orderedMembers(node);
  if (always.length === 0) return ['{}'];
  const member = (name: string, value: Node, comma: string): string[] => {
    if (value instanceof When) {
      const { condition, held, otherwise } = value;
      const chosen = choose(condition);
      const other = (): string[] => (otherwise === undefined ? [] : member(name, otherwise, comma));
      if (typeof chosen === 'boolean') return chosen ? member(name, held, comma) : other();
      const alternative = otherwise === undefined ? [] : [chosen.between, ...other()];
      return [chosen.before, ...member(name, held, comma), ...alternative, chosen.after];
    }
    const [first = '', ...rest] = jsonLines(value, print, choose);
    const lines = [`${JSON.stringify(name)}: ${first}`, ...rest];
    return lines.map((line, index) =>
      line.startsWith('{{- ') ? line : `  ${line}${index === lines.length - 1 ? comma : ''}`,
    );
  };
  const all = [...conditional, ...always];
  return ['{', ...all.flatMap(([name, value], index) => member(name, value, index === all.length - 1 ? '' : ',')), '}'];
}
