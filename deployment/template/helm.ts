import { stringify } from 'yaml';
import { jsonLines } from './json-text.ts';
import {
  type Condition,
  Digest,
  Each,
  isMembers,
  JsonText,
  Member,
  type Node,
  orderedMembers,
  Reference,
  Text,
  When,
} from './nodes.ts';

/** The text of a Helm template that renders to these documents. */
export function helmTemplate(documents: readonly Node[]): string {
  return `${documents.flatMap((document) => documentLines(document, false)).join('\n')}\n`;
}

function documentLines(node: Node, inLoop: boolean): string[] {
  if (Array.isArray(node)) return (node as readonly Node[]).flatMap((document) => documentLines(document, inLoop));
  if (node instanceof When) {
    const otherwise = node.otherwise === undefined ? [] : ['{{- else }}', ...documentLines(node.otherwise, inLoop)];
    return [
      `{{- if ${condition(node.condition, inLoop)} }}`,
      ...documentLines(node.held, inLoop),
      ...otherwise,
      '{{- end }}',
    ];
  }
  if (node instanceof Each) return loop(node, inLoop, documentLines(node.body, true));
  return ['---', ...block(node, inLoop)];
}

function loop({ list, variable }: Each, inLoop: boolean, lines: readonly string[]): string[] {
  return [`{{- range $${variable} := ${reference(list, inLoop)} }}`, ...lines, '{{- end }}'];
}

/** Lines of a node that stand by themselves, without indentation. */
function block(node: Node, inLoop: boolean): string[] {
  if (Array.isArray(node)) return (node as readonly Node[]).flatMap((item) => itemLines(item, inLoop));
  if (isMembers(node)) {
    const { always, conditional } = orderedMembers(node);
    // The first line of an item cannot be an action.
    const plain = always.filter(([, member]) => !(member instanceof When));
    const chosen = always.filter(([, member]) => member instanceof When);
    return [...plain, ...chosen, ...conditional].flatMap(([name, member]) => memberLines(name, member, inLoop));
  }
  return [inline(node, inLoop)];
}

function memberLines(name: string, node: Node, inLoop: boolean): string[] {
  const key = inline(name, inLoop);
  if (node instanceof When) {
    const otherwise = node.otherwise === undefined ? [] : ['{{- else }}', ...memberLines(name, node.otherwise, inLoop)];
    return [
      `{{- if ${condition(node.condition, inLoop)} }}`,
      ...memberLines(name, node.held, inLoop),
      ...otherwise,
      '{{- end }}',
    ];
  }
  if (node instanceof Member) {
    return [`${key}:`, `  ${inline(node.name, inLoop)}: ${inline(node.value, inLoop)}`];
  }
  if (node instanceof JsonText) return [`${key}: |`, ...indented(documentText(node, inLoop), '  ')];
  if (isMembers(node) && Object.values(node).some((member) => member !== undefined)) {
    return [`${key}:`, ...indented(block(node, inLoop), '  ')];
  }
  if (Array.isArray(node) && node.length > 0) {
    if (node.every((item) => item instanceof When)) {
      throw new TypeError(`a list of which every item is conditional: ${name}`);
    }
    if (node.every((item) => typeof item !== 'object')) return [`${key}: ${flow(node as readonly Node[], inLoop)}`];
    return [`${key}:`, ...indented(block(node as Node, inLoop), '  ')];
  }
  return [`${key}: ${inline(node, inLoop)}`];
}

function itemLines(node: Node, inLoop: boolean): string[] {
  if (node instanceof When) {
    const of = (branch: Node): string[] =>
      Array.isArray(branch) || branch instanceof Each
        ? block([branch].flat() as Node, inLoop)
        : itemLines(branch, inLoop);
    const otherwise = node.otherwise === undefined ? [] : ['{{- else }}', ...of(node.otherwise)];
    return [`{{- if ${condition(node.condition, inLoop)} }}`, ...of(node.held), ...otherwise, '{{- end }}'];
  }
  if (node instanceof Each) {
    const body = Array.isArray(node.body) ? block(node.body as Node, true) : itemLines(node.body, true);
    return loop(node, inLoop, body);
  }
  if (!isMembers(node) || Object.keys(node).length === 0) return [`- ${inline(node, inLoop)}`];
  const [first = '', ...rest] = block(node, inLoop);
  return [`- ${first}`, ...indented(rest, '  ')];
}

/** Actions on lines of their own take the line break before them away; they need no indentation, and read better without. */
function indented(lines: readonly string[], by: string): string[] {
  return lines.map((line) => (line.startsWith('{{- ') ? line : by + line));
}

function documentText({ content }: JsonText, inLoop: boolean): string[] {
  return jsonLines(
    content,
    (leaf) => inline(leaf, inLoop),
    (of) => ({ before: `{{- if ${condition(of, inLoop)} }}`, between: '{{- else }}', after: '{{- end }}' }),
  );
}

function inline(node: Node, inLoop: boolean): string {
  if (node instanceof Reference) return `{{ ${reference(node, inLoop)} | toJson }}`;
  if (node instanceof Text) return `{{ ${printed(node, inLoop)} | toJson }}`;
  if (node instanceof Digest) {
    const root = inLoop ? '$.Values' : '.Values';
    return `{{ list ${node.paths.map((path) => `${root}.${path}`).join(' ')} | toJson | sha256sum }}`;
  }
  if (typeof node !== 'object') {
    if (typeof node === 'string' && node.includes('{{'))
      throw new TypeError(`a constant text looks like an action: ${node}`);
    if (typeof node === 'string' && node.includes('\n')) return JSON.stringify(node);
    return stringify(node, { lineWidth: 0 }).trimEnd();
  }
  if (isMembers(node) && Object.keys(node).length === 0) return '{}';
  throw new TypeError(`a node that does not fit on a line: ${JSON.stringify(node)}`);
}

/** A list of constants on one line. */
function flow(items: readonly Node[], inLoop: boolean): string {
  const quoted = (text: string): string =>
    /[,[\]{}#&*!|>%@`]/.test(text) && !text.startsWith('"') ? JSON.stringify(text) : text;
  return `[${items.map((item) => quoted(inline(item, inLoop))).join(', ')}]`;
}

function printed({ parts }: Text, inLoop: boolean): string {
  const format = parts.map((part) => {
    if (typeof part === 'string') return part.replaceAll('%', '%%');
    return part.setting.type === 'integer' ? '%d' : '%s';
  });
  const args = parts.flatMap((part) => {
    if (typeof part === 'string') return [];
    const path = reference(part, inLoop);
    return [part.setting.type === 'integer' ? `(int64 ${path})` : path];
  });
  return `printf ${[JSON.stringify(format.join('')), ...args].join(' ')}`;
}

function reference({ path, root }: Reference, inLoop: boolean): string {
  return [inLoop && root.startsWith('.') ? `$${root}` : root, ...path].join('.');
}

function condition(of: Condition, inLoop: boolean): string {
  if (of instanceof Reference) return reference(of, inLoop);
  switch (of.operator) {
    case 'equals':
      return `(eq ${reference(of.left, inLoop)} ${of.right instanceof Reference ? reference(of.right, inLoop) : JSON.stringify(of.right)})`;
    case 'not':
      return `(not ${condition(of.of, inLoop)})`;
    default:
      return `(${of.operator} ${of.of.map((part) => condition(part, inLoop)).join(' ')})`;
  }
}
