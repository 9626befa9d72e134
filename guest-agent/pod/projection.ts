import { createHash } from 'node:crypto';
import { type DescField, type DescMessage, type Message, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { type CopyFileRequest, CopyFileRequestSchema } from '@sealpod/protocol/gen/kata/agent_pb';

/** A JSON number of any size, written digit by digit: 64-bit values do not fit JavaScript's numbers. */
const exactNumber = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON;

/**
 * A request as policies see it in `input` (Kata's agent: the protobuf structs through serde). Field names are those of the
 * proto; `type` is `type_`; empty text, lists and zeros are present; absent messages and optional fields are null; bytes are
 * arrays of numbers; enums are integers.
 */
export function projectRequest<T extends Message>(schema: DescMessage, message: T): Record<string, unknown> {
  if (schema.typeName === CopyFileRequestSchema.typeName) return projectCopyFile(message as unknown as CopyFileRequest);
  return projectMessage(reflect(schema, message));
}

function projectMessage(message: ReflectMessage): Record<string, unknown> {
  const projected: Record<string, unknown> = {};
  for (const member of message.members) {
    if (member.kind === 'oneof') {
      const set = message.oneofCase(member);
      // serde writes an enum's variant as an object with one member.
      projected[member.name] = set === undefined ? null : { [set.name]: projectField(message, set) };
    } else {
      projected[fieldName(member)] = projectField(message, member);
    }
  }
  return projected;
}

/** `type` is a reserved word of Rust; its struct field is `type_`. */
function fieldName(field: DescField): string {
  return field.name === 'type' ? 'type_' : field.name;
}

function projectField(message: ReflectMessage, field: DescField): unknown {
  switch (field.fieldKind) {
    case 'message':
      return message.isSet(field) ? projectMessage(message.get(field)) : null;
    case 'list':
      return Array.from(message.get(field), (item) =>
        field.listKind === 'message'
          ? projectMessage(item as ReflectMessage)
          : projectScalar(item, field.listKind === 'scalar' ? field.scalar : undefined),
      );
    case 'map':
      return Object.fromEntries(
        Array.from(message.get(field), ([key, value]) => [
          String(key),
          field.mapKind === 'message'
            ? projectMessage(value as ReflectMessage)
            : projectScalar(value, field.mapKind === 'scalar' ? field.scalar : undefined),
        ]),
      );
    case 'enum':
      return message.get(field);
    case 'scalar':
      if (field.proto.proto3Optional && !message.isSet(field)) return null;
      return projectScalar(message.get(field), field.scalar);
  }
}

function projectScalar(value: unknown, type: ScalarType | undefined): unknown {
  if (typeof value === 'bigint') return exactNumber(value.toString());
  if (type === ScalarType.BYTES) return Array.from(value as Uint8Array);
  return value;
}

const fileTypeMask = 0o170000;
const fileTypes = new Map([
  [0o100000, 'Regular'],
  [0o040000, 'Directory'],
  [0o120000, 'Symlink'],
]);

/**
 * CopyFile as policies see it: never the content, but its digest (ours; upstream's agent has none), by which a policy knows
 * what its owner saw; of a symbolic link its target.
 */
function projectCopyFile(request: CopyFileRequest): Record<string, unknown> {
  const fileType = fileTypes.get(request.fileMode & fileTypeMask) ?? 'Unknown';
  return {
    path: request.path,
    file_type: fileType,
    symlink_target: fileType === 'Symlink' ? Buffer.from(request.data).toString('utf8') : '',
    file_size: exactNumber(request.fileSize.toString()),
    file_mode: request.fileMode,
    dir_mode: request.dirMode,
    uid: request.uid,
    gid: request.gid,
    offset: exactNumber(request.offset.toString()),
    data_sha256: createHash('sha256').update(request.data).digest('hex'),
  };
}
