import type { JsonObject, JsonValue } from '@sealpod/protocol/json';

/** A rule in the Common Expression Language that the API server holds an object to. `self` is the value. */
export interface Rule {
  readonly rule: string;
  readonly message: string;
}

interface Described {
  /** One or more sentences, shown in values.yaml, in `kubectl explain` and in the reference. */
  readonly description: string;
  readonly rules?: readonly Rule[];
}

/** A text. Without `default` it has to be given. */
export interface TextSetting extends Described {
  readonly type: 'text';
  readonly default?: string;
  readonly choices?: readonly string[];
  /** Regular expression that the text matches. */
  readonly pattern?: string;
  readonly maxLength?: number;
}

export interface IntegerSetting extends Described {
  readonly type: 'integer';
  readonly default?: number;
  readonly minimum: number;
  readonly maximum: number;
}

export interface FlagSetting extends Described {
  readonly type: 'flag';
  readonly default: boolean;
}

export interface ListSetting<Item extends Setting = Setting> extends Described {
  readonly type: 'list';
  readonly item: Item;
  readonly default: readonly JsonValue[];
  readonly maxItems: number;
  readonly minItems?: number;
  /** Members of the items that tell them apart; makes the list a map for whoever applies it. */
  readonly keys?: readonly string[];
}

/** Text by text, e.g. labels. */
export interface MapSetting extends Described {
  readonly type: 'map';
  readonly default: Readonly<Record<string, string>>;
}

/** A JSON object whose members are somebody else's to define. */
export interface FreeSetting extends Described {
  readonly type: 'free';
  readonly default: JsonObject;
}

export interface GroupSetting<Members extends Readonly<Record<string, Setting>> = Readonly<Record<string, Setting>>>
  extends Described {
  readonly type: 'group';
  readonly members: Members;
}

/** One value that the operator may set. */
export type Setting =
  | TextSetting
  | IntegerSetting
  | FlagSetting
  | ListSetting
  | MapSetting
  | FreeSetting
  | GroupSetting;

/** The value of a setting, with defaults filled in. */
export type ValueOf<S extends Setting> = S extends TextSetting
  ? string
  : S extends IntegerSetting
    ? number
    : S extends FlagSetting
      ? boolean
      : S extends ListSetting<infer Item>
        ? readonly ValueOf<Item>[]
        : S extends MapSetting
          ? Readonly<Record<string, string>>
          : S extends FreeSetting
            ? JsonObject
            : S extends GroupSetting<infer Members>
              ? { readonly [Name in keyof Members]: ValueOf<Members[Name]> }
              : never;

type Options<S extends Setting> = Omit<S, 'type' | 'description'>;

export const text = (description: string, options: Options<TextSetting> = {}): TextSetting => ({
  type: 'text',
  description,
  ...options,
});

export const integer = (description: string, options: Options<IntegerSetting>): IntegerSetting => ({
  type: 'integer',
  description,
  ...options,
});

export const flag = (description: string, value: boolean): FlagSetting => ({
  type: 'flag',
  description,
  default: value,
});

export const list = <Item extends Setting>(
  description: string,
  item: Item,
  options: Partial<Omit<ListSetting<Item>, 'type' | 'description' | 'item'>> = {},
): ListSetting<Item> => ({ type: 'list', description, item, default: [], maxItems: 64, ...options });

export const map = (description: string, value: Readonly<Record<string, string>> = {}): MapSetting => ({
  type: 'map',
  description,
  default: value,
});

export const free = (description: string, value: JsonObject = {}): FreeSetting => ({
  type: 'free',
  description,
  default: value,
});

export const group = <Members extends Readonly<Record<string, Setting>>>(
  description: string,
  members: Members,
  rules: readonly Rule[] = [],
): GroupSetting<Members> => ({
  type: 'group',
  description,
  members,
  ...(rules.length === 0 ? {} : { rules }),
});

/** The default of a setting; undefined where it has to be given. */
export function defaultOf(setting: Setting): JsonValue | undefined {
  if (setting.type !== 'group') return setting.default as JsonValue | undefined;
  return Object.fromEntries(
    Object.entries(setting.members).flatMap(([name, member]) => {
      const value = defaultOf(member);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
