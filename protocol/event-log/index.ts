export { type AaelEvent, aaelEvent, aaelTag, encodeAaelEntry, parseAael } from './aael.ts';
export { describeEvent } from './describe.ts';
export { parseTaggedEvent, parseUefiVariable, type TaggedEvent, type UefiVariable, utf16Text } from './event-data.ts';
export { EventType, eventTypeName } from './event-types.ts';
export { type EventDigest, type EventLog, type LogEvent, type ParseEventLogOptions, parseEventLog } from './parse.ts';
export { isStartupLocality, replay } from './replay.ts';
