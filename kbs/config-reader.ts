import { resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';

interface IntegerRange {
  readonly default?: number;
  readonly minimum?: number;
  readonly maximum?: number;
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reads the members of one configuration object; `end` refuses the ones nobody asked for (a typing error, mostly). */
export class ConfigReader {
  readonly #object: JsonObject;
  readonly #where: string;
  readonly #directory: string;
  readonly #read = new Set<string>();

  constructor(value: JsonValue, where: string, directory = '.') {
    if (!isObject(value)) {
      throw new SealpodError('USAGE', `the configuration${where === '' ? '' : ` member ${where}`} is no object`);
    }
    this.#object = value;
    this.#where = where;
    this.#directory = directory;
  }

  #name(name: string): string {
    return this.#where === '' ? name : `${this.#where}.${name}`;
  }

  #take(name: string): JsonValue | undefined {
    this.#read.add(name);
    return Object.hasOwn(this.#object, name) ? this.#object[name] : undefined;
  }

  #refuse(name: string, expected: string, actual: JsonValue | undefined): never {
    const shown = actual === undefined ? 'missing' : JSON.stringify(actual);
    throw new SealpodError('USAGE', `configuration: ${this.#name(name)} must be ${expected}`, {
      expected,
      actual: shown,
    });
  }

  text(name: string, otherwise?: string): string {
    const value = this.#take(name) ?? otherwise;
    return typeof value === 'string' && value !== '' ? value : this.#refuse(name, 'a text', value);
  }

  optionalText(name: string): string | undefined {
    return this.#take(name) === undefined ? undefined : this.text(name);
  }

  /** A member that another reader understands. */
  optionalJson(name: string): JsonValue | undefined {
    return this.#take(name);
  }

  /** A path of a member that another reader found, relative to the configuration's directory. */
  resolve(path: string): string {
    return resolve(this.#directory, path);
  }

  optionalPath(name: string): string | undefined {
    return this.#take(name) === undefined ? undefined : this.path(name);
  }

  /** A path, taken relative to the configuration's directory. */
  path(name: string): string {
    return this.resolve(this.text(name));
  }

  flag(name: string, otherwise: boolean): boolean {
    const value = this.#take(name) ?? otherwise;
    return typeof value === 'boolean' ? value : this.#refuse(name, 'true or false', value);
  }

  integer(name: string, range: IntegerRange): number {
    const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = range;
    const value = this.#take(name) ?? range.default;
    if (typeof value === 'number' && Number.isInteger(value) && value >= minimum && value <= maximum) return value;
    return this.#refuse(name, `an integer of ${minimum} to ${maximum}`, value);
  }

  oneOf<Choice extends string>(name: string, choices: readonly Choice[], otherwise?: Choice): Choice {
    const value = this.#take(name) ?? otherwise;
    return choices.find((choice) => choice === value) ?? this.#refuse(name, `one of ${choices.join(', ')}`, value);
  }

  texts(name: string, otherwise: readonly string[]): readonly string[] {
    const value = this.#take(name) ?? otherwise;
    if (!Array.isArray(value)) return this.#refuse(name, 'a list of texts', value);
    return value.map((text) =>
      typeof text === 'string' && text !== '' ? text : this.#refuse(name, 'a list of texts', text),
    );
  }

  object(name: string): ConfigReader {
    return this.optionalObject(name) ?? this.#refuse(name, 'an object', undefined);
  }

  optionalObject(name: string): ConfigReader | undefined {
    const value = this.#take(name);
    return value === undefined ? undefined : new ConfigReader(value, this.#name(name), this.#directory);
  }

  objects(name: string): ConfigReader[] {
    const value = this.#take(name);
    if (!Array.isArray(value) || value.length === 0) return this.#refuse(name, 'a list of objects', value);
    return value.map(
      (item: JsonValue, index) => new ConfigReader(item, `${this.#name(name)}[${index}]`, this.#directory),
    );
  }

  /** Throws `USAGE` where a member was never read. */
  end(): void {
    const unknown = Object.keys(this.#object).find((name) => !this.#read.has(name));
    if (unknown === undefined) return;
    throw new SealpodError('USAGE', `configuration: ${this.#name(unknown)} is not known`, {
      expected: `one of ${[...this.#read].join(', ')}`,
      actual: unknown,
    });
  }
}
