import { stringify } from 'yaml';
import { defaultOf, type GroupSetting, type Setting } from '../values/setting.ts';

const width = 110;

/** `values.yaml`: every value with its default and, above it, what it is for. */
export function valuesFile(settings: GroupSetting): string {
  return `${members(settings, '').join('\n')}\n`;
}

function members({ members: all }: GroupSetting, indent: string): string[] {
  return Object.entries(all).flatMap(([name, setting], index) => [
    ...(index > 0 && indent === '' ? [''] : []),
    ...comment(setting, indent),
    ...member(name, setting, indent),
  ]);
}

function member(name: string, setting: Setting, indent: string): string[] {
  if (setting.type === 'group') return [`${indent}${name}:`, ...members(setting, `${indent}  `)];
  const text = stringify({ [name]: defaultOf(setting) ?? '' }, { lineWidth: 0 }).trimEnd();
  return text.split('\n').map((line) => indent + line);
}

function comment(setting: Setting, indent: string): string[] {
  const choices =
    setting.type === 'text' && setting.choices !== undefined ? ` One of ${setting.choices.join(', ')}.` : '';
  const lines: string[] = [];
  let line = '';
  for (const word of `${setting.description}${choices}`.split(' ')) {
    if (line !== '' && indent.length + 2 + line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((part) => `${indent}# ${part}`);
}
