import { type GroupSetting, type ListSetting, type Setting, text } from '../values/setting.ts';

/**
 * A manifest with holes: plain JSON in which some places say where their value comes from. It is evaluated with concrete
 * values, or written as the text of a Helm template; both give equal objects.
 */
export type Node =
  | string
  | number
  | boolean
  | readonly Node[]
  | { readonly [member: string]: Node | undefined }
  | Reference
  | Text
  | JsonText
  | Digest
  | Member
  | When
  | Each;

/** A value by its path: one of the operator's, of the release, or of the item of an enclosing `Each`. */
export class Reference {
  readonly path: readonly string[];
  readonly setting: Setting;
  /** `.Values`, `.Release`, or the variable of a loop. */
  readonly root: string;

  constructor(path: readonly string[], setting: Setting, root = '.Values') {
    this.path = path;
    this.setting = setting;
    this.root = root;
  }
}

/** Namespace that Helm keeps the release in. */
export const releaseNamespace = new Reference(['Namespace'], text('Namespace of the release.'), '.Release');

/** A text made of constant parts and values. */
export class Text {
  readonly parts: readonly (string | Reference)[];

  constructor(parts: readonly (string | Reference)[]) {
    this.parts = parts;
  }
}

/** A text that holds a JSON document, as configuration files do. */
export class JsonText {
  readonly content: Node;

  constructor(content: Node) {
    this.content = content;
  }
}

/** An object of one member whose name is a value too. */
export class Member {
  readonly name: Text;
  readonly value: Node;

  constructor(name: Text, value: Node) {
    this.name = name;
    this.value = value;
  }
}

/** SHA-256 (hex) over values by their paths: changes whenever one of them does. */
export class Digest {
  readonly paths: readonly string[];

  constructor(paths: readonly string[]) {
    this.paths = paths;
  }
}

/** True by the rules of Go's templates: neither false, 0, "" nor empty. */
export type Condition =
  | Reference
  | { readonly operator: 'equals'; readonly left: Reference; readonly right: string | Reference }
  | { readonly operator: 'not'; readonly of: Condition }
  | { readonly operator: 'and' | 'or'; readonly of: readonly Condition[] };

/** A member, an item or a whole document that is there under a condition, or another in its place. */
export class When {
  readonly condition: Condition;
  readonly held: Node;
  readonly otherwise: Node | undefined;

  constructor(condition: Condition, held: Node, otherwise?: Node) {
    this.condition = condition;
    this.held = held;
    this.otherwise = otherwise;
  }
}

/** Items or documents, one for each item of a list. */
export class Each {
  readonly list: Reference;
  readonly variable: string;
  readonly body: Node;

  constructor(list: Reference, variable: string, body: Node) {
    this.list = list;
    this.variable = variable;
    this.body = body;
  }
}

/** What stands for the values of a setting while a manifest is written down. */
export type Placeholders<S extends Setting> =
  S extends GroupSetting<infer Members>
    ? { readonly [Name in keyof Members]: Placeholders<Members[Name]> }
    : Reference & { readonly setting: S };

/** The placeholders of a setting at `path`. */
export function placeholders<S extends Setting>(
  setting: S,
  path: readonly string[] = [],
  root?: string,
): Placeholders<S> {
  const made: unknown =
    setting.type === 'group'
      ? Object.fromEntries(
          Object.entries(setting.members).map(([name, member]) => [name, placeholders(member, [...path, name], root)]),
        )
      : new Reference(path, setting, root);
  return made as Placeholders<S>;
}

export const when = (condition: Condition, held: Node, otherwise?: Node): When => new When(condition, held, otherwise);
export const not = (of: Condition): Condition => ({ operator: 'not', of });
export const and = (...of: readonly Condition[]): Condition => ({ operator: 'and', of });
export const or = (...of: readonly Condition[]): Condition => ({ operator: 'or', of });
export const equals = (left: Reference, right: string | Reference): Condition => ({ operator: 'equals', left, right });
export const jsonText = (content: Node): JsonText => new JsonText(content);

/** `body` for each item of a list. `variable` is unique among the loops around it. */
export function each<Item extends Setting>(
  list: Reference & { readonly setting: ListSetting<Item> },
  variable: string,
  body: (item: Placeholders<Item>) => Node,
): Each {
  return new Each(list, variable, body(placeholders(list.setting.item, [], `$${variable}`)));
}

/** A template literal: constant text around values. */
export function textOf(strings: TemplateStringsArray, ...inserted: readonly (string | Reference)[]): Text {
  return new Text(
    strings.flatMap((part, index) => {
      const next = inserted[index];
      return [...(part === '' ? [] : [part]), ...(next === undefined ? [] : [next])];
    }),
  );
}

/** Whether a node is a plain object of members. */
export function isMembers(node: Node): node is { readonly [member: string]: Node | undefined } {
  return typeof node === 'object' && !Array.isArray(node) && Object.getPrototypeOf(node) === Object.prototype;
}

/** Members that are there, those without a condition first: a block of YAML or JSON has to begin (or end) with one. */
export function orderedMembers(node: { readonly [member: string]: Node | undefined }): {
  readonly always: readonly (readonly [string, Node])[];
  readonly conditional: readonly (readonly [string, When])[];
} {
  const always: [string, Node][] = [];
  const conditional: [string, When][] = [];
  for (const [name, member] of Object.entries(node)) {
    if (member instanceof When && member.otherwise === undefined) conditional.push([name, member]);
    else if (member !== undefined) always.push([name, member]);
  }
  if (always.length === 0 && conditional.length > 0) {
    throw new TypeError(
      `an object of which every member is conditional: ${conditional.map(([name]) => name).join(', ')}`,
    );
  }
  return { always, conditional };
}
