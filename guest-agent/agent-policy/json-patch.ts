/** One operation of RFC 6902. */
export interface PatchOperation {
  readonly op: 'add' | 'remove' | 'replace' | 'move' | 'copy' | 'test';
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

type Container = Record<string, unknown> | unknown[];

/**
 * Applies a JSON Patch (RFC 6902) and returns the patched copy; `document` is untouched, also where an operation fails.
 * Throws an Error where an operation does not apply. Members are set as own properties, so `__proto__` is a plain name.
 */
export function applyPatch(document: unknown, operations: readonly PatchOperation[]): unknown {
  let patched: unknown = structuredClone(document);
  for (const operation of operations) patched = applyOperation(patched, operation);
  return patched;
}

function applyOperation(document: unknown, operation: PatchOperation): unknown {
  switch (operation.op) {
    case 'add':
      return add(document, operation.path, required(operation.value, operation));
    case 'remove':
      return remove(document, operation.path);
    case 'replace':
      valueAt(document, operation.path);
      if (operation.path === '') return required(operation.value, operation);
      return add(removed(document, operation.path), operation.path, required(operation.value, operation));
    case 'move': {
      const from = required(operation.from, operation) as string;
      if (operation.path.startsWith(`${from}/`)) throw new Error(`cannot move ${from} into itself`);
      return add(remove(document, from, true), operation.path, valueAt(document, from));
    }
    case 'copy':
      return add(
        document,
        operation.path,
        structuredClone(valueAt(document, required(operation.from, operation) as string)),
      );
    case 'test':
      if (!equal(valueAt(document, operation.path), operation.value))
        throw new Error(`test of ${operation.path} fails`);
      return document;
    default:
      throw new Error(`unknown patch operation ${String(operation.op)}`);
  }
}

function required(value: unknown, operation: PatchOperation): unknown {
  if (value === undefined) throw new Error(`patch operation ${operation.op} of ${operation.path} lacks a member`);
  return value;
}

function tokens(pointer: string): string[] {
  if (pointer === '') return [];
  if (!pointer.startsWith('/')) throw new Error(`not a JSON pointer: ${pointer}`);
  return pointer
    .slice(1)
    .split('/')
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function arrayIndex(token: string, length: number): number {
  const index = /^(0|[1-9]\d*)$/.test(token) ? Number(token) : Number.NaN;
  if (!(index < length)) throw new Error(`no array element ${token}`);
  return index;
}

function member(container: unknown, token: string): unknown {
  if (Array.isArray(container)) return container[arrayIndex(token, container.length)];
  if (isContainer(container) && Object.hasOwn(container, token)) return (container as Record<string, unknown>)[token];
  throw new Error(`no member ${token}`);
}

function isContainer(value: unknown): value is Container {
  return typeof value === 'object' && value !== null;
}

function valueAt(document: unknown, pointer: string): unknown {
  return tokens(pointer).reduce(member, document);
}

/** The container that holds the last token of a pointer, and that token. */
function place(document: unknown, pointer: string): [Container, string] {
  const path = tokens(pointer);
  const last = path.pop();
  const container = path.reduce(member, document);
  if (last === undefined || !isContainer(container)) throw new Error(`nothing to patch at ${pointer}`);
  return [container, last];
}

function add(document: unknown, pointer: string, value: unknown): unknown {
  if (pointer === '') return value;
  const [container, token] = place(document, pointer);
  if (Array.isArray(container)) {
    container.splice(token === '-' ? container.length : arrayIndex(token, container.length + 1), 0, value);
  } else {
    Object.defineProperty(container, token, { value, writable: true, enumerable: true, configurable: true });
  }
  return document;
}

function remove(document: unknown, pointer: string, copy = false): unknown {
  return removed(copy ? structuredClone(document) : document, pointer);
}

function removed(document: unknown, pointer: string): unknown {
  const [container, token] = place(document, pointer);
  member(container, token);
  if (Array.isArray(container)) container.splice(Number(token), 1);
  else delete container[token];
  return document;
}

function equal(a: unknown, b: unknown): boolean {
  if (!isContainer(a) || !isContainer(b)) return a === b;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [keysOfA, keysOfB] = [Object.keys(a), Object.keys(b)];
  return (
    keysOfA.length === keysOfB.length &&
    keysOfA.every((key) => Object.hasOwn(b, key) && equal(Reflect.get(a, key), Reflect.get(b, key)))
  );
}
