import { type Initdata, type InitdataAlgorithm, initdataVersion, parseInitdata, schemaError } from './document.ts';

/**
 * Writes an initdata document. Equal input gives equal bytes (names sorted), so its digest can be a reference value.
 *
 * @throws SealpodError INITDATA_SCHEMA where the result would not parse back to the same values
 */
export function composeInitdata(input: {
  readonly algorithm?: InitdataAlgorithm;
  readonly data: Readonly<Record<string, string>>;
}): string {
  const lines = [`algorithm = "${input.algorithm ?? 'sha256'}"`, `version = "${initdataVersion}"`, '', '[data]'];
  for (const name of Object.keys(input.data).sort()) {
    lines.push(`${tomlKey(name)} = ${tomlString(input.data[name] ?? '')}`);
  }
  const toml = `${lines.join('\n')}\n`;
  if (!sameData(parseInitdata(toml), input.data)) throw schemaError('a value cannot be written as TOML');
  return toml;
}

function sameData(parsed: Initdata, data: Readonly<Record<string, string>>): boolean {
  const names = Object.keys(data);
  return names.length === Object.keys(parsed.data).length && names.every((name) => parsed.data[name] === data[name]);
}

function tomlKey(name: string): string {
  return /^[A-Za-z0-9_-]+$/.test(name) ? name : basicString(name);
}

/** A multi-line literal string where the value allows one (it stays readable), else a basic string with escapes. */
function tomlString(value: string): string {
  const literal = value.includes('\n') && !value.includes("'''") && !value.endsWith("'") && isPlain(value);
  return literal ? `'''\n${value}'''` : basicString(value);
}

function isPlain(value: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: TOML forbids exactly these in a literal string; CR would be normalised
  return !/[\u0000-\u0008\u000b-\u001f\u007f]/.test(value);
}

function basicString(value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: TOML requires exactly these to be escaped
  const escaped = value.replace(/["\\\u0000-\u001f\u007f]/g, (character) => {
    if (character === '"' || character === '\\') return `\\${character}`;
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return `"${escaped}"`;
}
