export { type ChainCheck, checkLogChain } from './log-chain.ts';
export { openStorage } from './open.ts';
export type {
  Entry,
  ListOptions,
  LogEntry,
  Operations,
  PutOptions,
  ReadLogOptions,
  Storage,
  StorageValue,
} from './storage.ts';
export { jsonOf, textOf } from './values.ts';
