import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { goJson, jsonLines } from './json-text.ts';
import {
  type Condition,
  Digest,
  Each,
  isMembers,
  JsonText,
  Member,
  type Node,
  Reference,
  Text,
  When,
} from './nodes.ts';

/** Concrete values, and the items of the loops around a node. */
export interface Context {
  readonly values: JsonObject;
  /** Items by the variables of their loops, and the release as `.Release`. */
  readonly items: Readonly<Record<string, JsonValue>>;
}

/** The objects of a list of documents for concrete values. @throws SealpodError INTERNAL for a value that is missing */
export function evaluateDocuments(
  documents: readonly Node[],
  values: JsonObject,
  releaseNamespace = 'default',
): JsonObject[] {
  return evaluateItems(documents, { values, items: { '.Release': { Namespace: releaseNamespace } } }) as JsonObject[];
}

/** The value of a node; undefined where its condition does not hold. */
export function evaluate(node: Node, context: Context): JsonValue | undefined {
  if (typeof node !== 'object') return node;
  if (Array.isArray(node)) return evaluateItems(node as readonly Node[], context);
  if (node instanceof Reference) return lookUp(node, context);
  if (node instanceof Text) return node.parts.map((part) => textOfPart(part, context)).join('');
  if (node instanceof Member) {
    return { [String(evaluate(node.name, context))]: evaluate(node.value, context) as JsonValue };
  }
  if (node instanceof Digest) {
    const found = node.paths.map((path) => lookUp({ path: path.split('.'), root: '.Values' }, context));
    return createHash('sha256').update(goJson(found)).digest('hex');
  }
  if (node instanceof JsonText) {
    const print = (leaf: Node): string => goJson(evaluate(leaf, context));
    return `${jsonLines(node.content, print, (condition) => holds(condition, context)).join('\n')}\n`;
  }
  if (node instanceof When) {
    const chosen = holds(node.condition, context) ? node.held : node.otherwise;
    return chosen === undefined ? undefined : evaluate(chosen, context);
  }
  if (!isMembers(node)) throw new TypeError('a loop stands where one value is expected');
  return Object.fromEntries(
    Object.entries(node).flatMap(([name, member]) => {
      const value = member === undefined ? undefined : evaluate(member, context);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

function evaluateItems(nodes: readonly Node[], context: Context): JsonValue[] {
  return nodes.flatMap((node): JsonValue[] => {
    if (node instanceof When && (Array.isArray(node.held) || node.held instanceof Each)) {
      if (!holds(node.condition, context)) return [];
      return evaluateItems(Array.isArray(node.held) ? (node.held as readonly Node[]) : [node.held], context);
    }
    if (!(node instanceof Each)) {
      const value = evaluate(node, context);
      return value === undefined ? [] : [value];
    }
    const { list, variable, body } = node;
    const items = lookUp(list, context) as readonly JsonValue[];
    return items.flatMap((item) =>
      evaluateItems(Array.isArray(body) ? (body as readonly Node[]) : [body], {
        ...context,
        items: { ...context.items, [`$${variable}`]: item },
      }),
    );
  });
}

function lookUp({ path, root }: Pick<Reference, 'path' | 'root'>, { values, items }: Context): JsonValue {
  let value: JsonValue | undefined = root === '.Values' ? values : items[root];
  for (const name of path) {
    value = typeof value === 'object' && value !== null ? (value as JsonObject)[name] : undefined;
  }
  if (value !== undefined) return value;
  throw new SealpodError('INTERNAL', `the value ${path.join('.')} is missing`);
}

function textOfPart(part: string | Reference, context: Context): string {
  return typeof part === 'string' ? part : String(lookUp(part, context));
}

function holds(condition: Condition, context: Context): boolean {
  if (condition instanceof Reference) return isTruthy(lookUp(condition, context));
  switch (condition.operator) {
    case 'equals':
      return (
        lookUp(condition.left, context) ===
        (condition.right instanceof Reference ? lookUp(condition.right, context) : condition.right)
      );
    case 'not':
      return !holds(condition.of, context);
    case 'and':
      return condition.of.every((part) => holds(part, context));
    case 'or':
      return condition.of.some((part) => holds(part, context));
  }
}

function isTruthy(value: JsonValue): boolean {
  if (typeof value !== 'object' || value === null) return Boolean(value);
  return (Array.isArray(value) ? value : Object.keys(value)).length > 0;
}
