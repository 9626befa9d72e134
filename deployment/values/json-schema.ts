import type { JsonObject } from '@sealpod/protocol/json';
import { defaultOf, type Setting } from './setting.ts';

/** Which dialect: Helm reads JSON Schema and refuses unknown members; a CRD's schema is structural and has CEL rules. */
export type Dialect = 'helm' | 'crd';

/** The schema of a setting. */
export function schemaOf(setting: Setting, dialect: Dialect): JsonObject {
  const rules =
    dialect === 'crd' && setting.rules !== undefined ? { 'x-kubernetes-validations': [...setting.rules] } : {};
  return { description: setting.description, ...typeOf(setting, dialect), ...(rules as JsonObject) };
}

function typeOf(setting: Setting, dialect: Dialect): JsonObject {
  const standard = setting.type === 'group' ? {} : defaultMember(setting);
  switch (setting.type) {
    case 'text':
      return {
        type: 'string',
        ...standard,
        ...(setting.choices === undefined ? {} : { enum: [...setting.choices] }),
        ...(setting.pattern === undefined ? {} : { pattern: setting.pattern }),
        ...(setting.maxLength === undefined ? {} : { maxLength: setting.maxLength }),
      };
    case 'integer':
      return { type: 'integer', ...standard, minimum: setting.minimum, maximum: setting.maximum };
    case 'flag':
      return { type: 'boolean', ...standard };
    case 'list':
      return {
        type: 'array',
        ...standard,
        items: schemaOf(setting.item, dialect),
        maxItems: setting.maxItems,
        ...(setting.minItems === undefined ? {} : { minItems: setting.minItems }),
        ...(dialect === 'crd' && setting.keys !== undefined
          ? { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': [...setting.keys] }
          : {}),
      };
    case 'map':
      return { type: 'object', ...standard, additionalProperties: { type: 'string' } };
    case 'free':
      return {
        type: 'object',
        ...standard,
        ...(dialect === 'crd' ? { 'x-kubernetes-preserve-unknown-fields': true } : {}),
      };
    case 'group':
      return groupSchema(setting.members, dialect);
  }
}

function defaultMember(setting: Setting): JsonObject {
  const value = isRequired(setting) ? undefined : defaultOf(setting);
  return value === undefined ? {} : { default: value };
}

function groupSchema(members: Readonly<Record<string, Setting>>, dialect: Dialect): JsonObject {
  const required = Object.entries(members)
    .filter(([, member]) => isRequired(member))
    .map(([name]) => name);
  const properties = Object.fromEntries(
    Object.entries(members).map(([name, member]) => {
      const schema = schemaOf(member, dialect);
      // Defaults are filled in top down: without this a group that is not given would have none of them.
      const defaulted = dialect === 'crd' && member.type === 'group' && !isRequired(member) ? { default: {} } : {};
      return [name, { ...schema, ...defaulted }];
    }),
  );
  return {
    type: 'object',
    properties,
    ...(required.length === 0 ? {} : { required }),
    ...(dialect === 'helm' ? { additionalProperties: false } : {}),
  };
}

/** Whether a value has to be given: it has no default, or a member of it has none. */
export function isRequired(setting: Setting): boolean {
  if (setting.type === 'group') return Object.values(setting.members).some(isRequired);
  if (setting.type === 'list') return setting.default.length < (setting.minItems ?? 0);
  return setting.default === undefined;
}
