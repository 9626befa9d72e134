import { apiGroup, apiVersion, resourceDefinitions } from '../resources/definitions.ts';
import { isRequired } from '../values/json-schema.ts';
import { defaultOf, type GroupSetting, type Setting } from '../values/setting.ts';

/** Rows of a table: path, what it may be, default, meaning. */
function rows(settings: GroupSetting, prefix: string): string[] {
  return Object.entries(settings.members).flatMap(([name, setting]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (setting.type === 'group')
      return [`| **\`${path}\`** | | | ${cell(setting.description)} |`, ...rows(setting, path)];
    const items = setting.type === 'list' && setting.item.type === 'group' ? rows(setting.item, `${path}[]`) : [];
    return [`| \`${path}\` | ${kindOf(setting)} | ${standard(setting)} | ${cell(setting.description)} |`, ...items];
  });
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

function standard(setting: Setting): string {
  const value = isRequired(setting) ? undefined : defaultOf(setting);
  return value === undefined ? 'required' : `\`${cell(JSON.stringify(value))}\``;
}

function kindOf(setting: Setting): string {
  switch (setting.type) {
    case 'text':
      return setting.choices === undefined ? 'text' : setting.choices.map((choice) => `\`${choice}\``).join(', ');
    case 'integer':
      return `${setting.minimum} – ${setting.maximum}`;
    case 'flag':
      return 'true, false';
    case 'list':
      return 'list';
    case 'map':
      return 'labels';
    default:
      return 'object';
  }
}

const head = ['| name | values | default | meaning |', '| --- | --- | --- | --- |'];

/** The reference of the chart's values. */
export function chartValuesPage(settings: GroupSetting): string {
  return [
    '# Values of the Helm chart',
    '',
    'Written by `npm run generate` from the source that the chart is made from. `helm install` refuses values that are not',
    'here or do not fit. How to use them: [operate with resources](../how-to/operate-with-resources.md).',
    '',
    ...head,
    ...rows(settings, ''),
    '',
  ].join('\n');
}

/** The reference of the resources. */
export function resourcesPage(): string {
  const sections = resourceDefinitions.flatMap(({ kind, scope, shortNames, description, spec, rules = [] }) => {
    const all = [...(spec.rules ?? []), ...rules];
    return [
      '',
      `## ${kind}`,
      '',
      `${scope === 'Cluster' ? 'One for the cluster' : 'In a namespace'}; short name \`${shortNames.join('`, `')}\`. ${description}`,
      '',
      ...(kind === 'SealpodRuntime'
        ? ['`spec` is what stands below `runtime` in the [values of the chart](chart-values.md).']
        : [...head, ...rows(spec, 'spec')]),
      ...(all.length === 0 ? [] : ['', 'The API server refuses:', '', ...all.map(({ message }) => `- ${message}.`)]),
    ];
  });
  return [
    '# Resources of sealpod.io',
    '',
    `Written by \`npm run generate\` from the source of the CustomResourceDefinitions, group \`${apiGroup}/${apiVersion}\`.`,
    'Every resource has the conditions `Ready`, `Progressing` and `Degraded`; the reason is a word for programs, the message',
    'says what is wrong and what to do. `kubectl get -o wide` shows both.',
    ...sections,
    '',
  ].join('\n');
}
