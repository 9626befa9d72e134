import { expect, test } from 'vitest';
import { flag, free, group, integer, list, map, text } from '../values/setting.ts';
import { evaluateDocuments } from './evaluate.ts';
import { helmTemplate } from './helm.ts';
import {
  and,
  Digest,
  each,
  equals,
  jsonText,
  Member,
  type Node,
  not,
  or,
  placeholders,
  textOf,
  when,
} from './nodes.ts';

const settings = group('All.', {
  name: text('Name.', { default: 'a' }),
  count: integer('Count.', { default: 3, minimum: 0, maximum: 9 }),
  on: flag('Switch.', true),
  labels: map('Labels.', { one: '1' }),
  options: free('Options.'),
  items: list('Items.', group('Item.', { id: text('Id.') }), { default: [{ id: 'x' }, { id: 'y' }] }),
});
const values = placeholders(settings);
const given = { name: 'a<b', count: 3, on: true, labels: { z: '1', a: '2' }, options: {}, items: [{ id: 'x' }] };

const document: Node = {
  kind: 'Thing',
  text: textOf`${values.name}: ${values.count}%`,
  'only.when': when(values.options, 'set', 'unset'),
  absent: when(not(values.on), 'never'),
  combined: when(and(values.on, or(values.options, equals(values.name, 'a<b'))), 'yes'),
  items: ['first', each(values.items, 'item', (item) => ({ id: item.id, of: values.name }))],
  file: jsonText({ optional: when(values.on, values.labels), n: values.count, nested: { s: 'x<y' } }),
  one: new Member(textOf`requests.${values.name}`, values.count),
  digest: new Digest(['labels']),
};

test('evaluates to objects', () => {
  expect(evaluateDocuments([when(values.on, [document]), when(not(values.on), document)], given)).toEqual([
    {
      kind: 'Thing',
      text: 'a<b: 3%',
      'only.when': 'unset',
      combined: 'yes',
      items: ['first', { id: 'x', of: 'a<b' }],
      file: '{\n  "optional": {"a":"2","z":"1"},\n  "n": 3,\n  "nested": {\n    "s": "x<y"\n  }\n}\n',
      one: { 'requests.a<b': 3 },
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
    },
  ]);
});

test('is written as a template of Helm', () => {
  expect(helmTemplate([document])).toMatchInlineSnapshot(`
    "---
    kind: Thing
    text: {{ printf "%s: %d%%" .Values.name (int64 .Values.count) | toJson }}
    items:
      - first
    {{- range $item := .Values.items }}
      - id: {{ $item.id | toJson }}
        of: {{ $.Values.name | toJson }}
    {{- end }}
    file: |
      {
    {{- if .Values.on }}
        "optional": {{ .Values.labels | toJson }},
    {{- end }}
        "n": {{ .Values.count | toJson }},
        "nested": {
          "s": "x<y"
        }
      }
    one:
      {{ printf "requests.%s" .Values.name | toJson }}: {{ .Values.count | toJson }}
    digest: {{ list .Values.labels | toJson | sha256sum }}
    {{- if .Values.options }}
    only.when: set
    {{- else }}
    only.when: unset
    {{- end }}
    {{- if (not .Values.on) }}
    absent: never
    {{- end }}
    {{- if (and .Values.on (or .Values.options (eq .Values.name "a<b"))) }}
    combined: yes
    {{- end }}
    "
  `);
});

test('refuses what would not be a valid template whatever the values', () => {
  expect(() => helmTemplate([{ a: when(values.on, '1') }])).toThrow('every member is conditional');
  expect(() => helmTemplate([{ a: [when(values.on, '1')] }])).toThrow('every item is conditional');
  expect(() => helmTemplate([{ a: '{{ .Values.secret }}' }])).toThrow('looks like an action');
});

test('a value that is not there is an error, not an empty text', () => {
  expect(() => evaluateDocuments([{ a: values.name }], {})).toThrow('the value name is missing');
});
