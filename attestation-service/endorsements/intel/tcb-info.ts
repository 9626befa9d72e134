import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  decodeHex,
  integerMember,
  type JsonObject,
  type JsonValue,
  objectMember,
  optionalMember,
  stringMember,
} from '@sealpod/protocol/json';

const code = 'EV_FORMAT';

/** What Intel says of a level of the TCB. */
export const levelStatuses = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const;
export type LevelStatus = (typeof levelStatuses)[number];

/** A status, since when, and what is known to be wrong with machines that are no further. */
export interface Level {
  readonly status: LevelStatus;
  readonly date: Date;
  readonly advisories: readonly string[];
}

/** A level of a platform: what its versions must reach at least. */
export interface TcbLevel extends Level {
  /** 16 versions. */
  readonly sgx: readonly number[];
  readonly pceSvn: number;
  /** 16 versions; of TCB info of TDX. */
  readonly tdx?: readonly number[];
}

/** A level of an enclave or of a TDX module. */
export interface IsvLevel extends Level {
  readonly isvSvn: number;
}

/** Who has to have signed the TDX module, and its attributes. */
export interface TdxModule {
  /** 48 bytes. */
  readonly mrSigner: Buffer;
  readonly attributes: Buffer;
  readonly attributesMask: Buffer;
}

/** Until when a document of Intel's is current, and how it counts the recoveries of the TCB. */
export interface SignedFor {
  readonly issueDate: Date;
  readonly nextUpdate: Date;
  readonly evaluationDataNumber: number;
}

/** TCB info of version 2 or 3 (PCS API, appendix A): what the versions of a platform are worth. */
export interface TcbInfo extends SignedFor {
  readonly tee: 'sgx' | 'tdx';
  readonly version: 2 | 3;
  /** Six bytes. */
  readonly fmspc: Buffer;
  readonly pceId: Buffer;
  /** The best first, as Intel sorts them. */
  readonly levels: readonly TcbLevel[];
  /** Of the module that is named nowhere else, version 0. */
  readonly tdxModule?: TdxModule;
  /** Identifier `TDX_01`, … in upper case → its module. */
  readonly tdxModules: ReadonlyMap<string, TdxModule & { readonly levels: readonly IsvLevel[] }>;
}

/** Identity of a quoting enclave of version 2 (PCS API, appendix B). */
export interface EnclaveIdentity extends SignedFor {
  readonly id: string;
  readonly miscSelect: Buffer;
  readonly miscSelectMask: Buffer;
  readonly attributes: Buffer;
  readonly attributesMask: Buffer;
  readonly mrSigner: Buffer;
  readonly isvProdId: number;
  readonly levels: readonly IsvLevel[];
}

const maxLevels = 256;

/** Reads what member `tcbInfo` holds. Its signature is not verified. @throws SealpodError EV_FORMAT naming the member */
export function parseTcbInfo(value: JsonValue | undefined): TcbInfo {
  const info = asJsonObject(value, 'tcbInfo', code);
  const version = integerMember(info, 'version', code);
  if (version !== 2 && version !== 3)
    throw new SealpodError(code, 'unknown version of TCB info', { expected: '2 or 3', actual: `${version}` });
  const id = version === 2 ? 'SGX' : stringMember(info, 'id', code);
  if (id !== 'SGX' && id !== 'TDX')
    throw new SealpodError(code, 'TCB info of an unknown TEE', { expected: 'SGX or TDX', actual: id.slice(0, 16) });
  if (integerMember(info, 'tcbType', code) !== 0)
    throw new SealpodError(code, 'TCB info composes versions in an unknown way', { expected: 'tcbType 0' });
  const module = id === 'TDX' ? { tdxModule: parseModule(objectMember(info, 'tdxModule', code)) } : {};
  return {
    tee: id === 'TDX' ? 'tdx' : 'sgx',
    version,
    ...signedFor(info),
    fmspc: hex(info, 'fmspc', 6),
    pceId: hex(info, 'pceId', 2),
    levels: list(info, 'tcbLevels').map((level) => parseLevel(level, version, id)),
    ...module,
    tdxModules: new Map(id === 'TDX' ? list(info, 'tdxModuleIdentities', true).map(parseModuleIdentity) : []),
  };
}

/** Reads what member `enclaveIdentity` holds. Its signature is not verified. @throws SealpodError EV_FORMAT naming the member */
export function parseEnclaveIdentity(value: JsonValue | undefined): EnclaveIdentity {
  const identity = asJsonObject(value, 'enclaveIdentity', code);
  const version = integerMember(identity, 'version', code);
  if (version !== 2)
    throw new SealpodError(code, 'unknown version of an enclave identity', { expected: '2', actual: `${version}` });
  return {
    id: stringMember(identity, 'id', code),
    ...signedFor(identity),
    miscSelect: hex(identity, 'miscselect', 4),
    miscSelectMask: hex(identity, 'miscselectMask', 4),
    attributes: hex(identity, 'attributes', 16),
    attributesMask: hex(identity, 'attributesMask', 16),
    mrSigner: hex(identity, 'mrsigner', 32),
    isvProdId: integerMember(identity, 'isvprodid', code),
    levels: list(identity, 'tcbLevels').map(parseIsvLevel),
  };
}

function signedFor(object: JsonObject): SignedFor {
  return {
    issueDate: date(object, 'issueDate'),
    nextUpdate: date(object, 'nextUpdate'),
    evaluationDataNumber: integerMember(object, 'tcbEvaluationDataNumber', code),
  };
}

function parseLevel(value: JsonObject, version: 2 | 3, id: 'SGX' | 'TDX'): TcbLevel {
  const tcb = objectMember(value, 'tcb', code);
  return {
    ...commonLevel(value),
    sgx: version === 2 ? numberedComponents(tcb) : components(tcb, 'sgxtcbcomponents'),
    pceSvn: integerMember(tcb, 'pcesvn', code),
    ...(id === 'TDX' ? { tdx: components(tcb, 'tdxtcbcomponents') } : {}),
  };
}

function parseIsvLevel(value: JsonObject): IsvLevel {
  return { ...commonLevel(value), isvSvn: integerMember(objectMember(value, 'tcb', code), 'isvsvn', code) };
}

function commonLevel(value: JsonObject): Level {
  const text = stringMember(value, 'tcbStatus', code);
  const status = levelStatuses.find((known) => known === text);
  if (status === undefined)
    throw new SealpodError(code, 'unknown status of a TCB level', {
      expected: levelStatuses.join(', '),
      actual: text.slice(0, 64),
    });
  const advisories = optionalMember(value, 'advisoryIDs') ?? [];
  if (!Array.isArray(advisories) || advisories.length > maxLevels)
    throw new SealpodError(code, 'advisoryIDs must be an array');
  return {
    status,
    date: date(value, 'tcbDate'),
    advisories: advisories.map((advisory: JsonValue) => asJsonText(advisory, 'advisoryIDs[]', code)),
  };
}

function parseModule(value: JsonObject): TdxModule {
  return {
    mrSigner: hex(value, 'mrsigner', 48),
    attributes: hex(value, 'attributes', 8),
    attributesMask: hex(value, 'attributesMask', 8),
  };
}

function parseModuleIdentity(value: JsonObject): [string, TdxModule & { readonly levels: readonly IsvLevel[] }] {
  const levels = list(value, 'tcbLevels').map(parseIsvLevel);
  return [stringMember(value, 'id', code).toUpperCase(), { ...parseModule(value), levels }];
}

/** Version 3: `[{svn}, …]`, 16 of them. */
function components(tcb: JsonObject, name: string): number[] {
  const values = list(tcb, name).map((component) => svn(component, 'svn'));
  if (values.length !== 16) throw new SealpodError(code, `${name} must have 16 items`, { actual: `${values.length}` });
  return values;
}

/** Version 2: `sgxtcbcomp01svn` to `sgxtcbcomp16svn`. */
function numberedComponents(tcb: JsonObject): number[] {
  return Array.from({ length: 16 }, (_, index) => svn(tcb, `sgxtcbcomp${String(index + 1).padStart(2, '0')}svn`));
}

function svn(object: JsonObject, name: string): number {
  const value = integerMember(object, name, code);
  if (value < 0 || value > 255) throw new SealpodError(code, `${name} must be a byte`, { actual: `${value}` });
  return value;
}

function list(object: JsonObject, name: string, optional = false): JsonObject[] {
  const value = optionalMember(object, name);
  if (value === undefined && optional) return [];
  if (!Array.isArray(value) || value.length === 0 || value.length > maxLevels)
    throw new SealpodError(code, `${name} must be an array of 1 to ${maxLevels} items`);
  return value.map((item: JsonValue) => asJsonObject(item, `${name}[]`, code));
}

function hex(object: JsonObject, name: string, bytes: number): Buffer {
  const text = stringMember(object, name, code);
  if (text.length !== bytes * 2)
    throw new SealpodError(code, `${name} must be of ${bytes} bytes`, { actual: `${text.length} digits` });
  return decodeHex(text, { what: name, maxBytes: bytes, code });
}

function date(object: JsonObject, name: string): Date {
  const text = stringMember(object, name, code);
  const value = new Date(text);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(text) || Number.isNaN(value.getTime()))
    throw new SealpodError(code, `${name} must be a date`, { expected: 'YYYY-MM-DDTHH:MM:SSZ' });
  return value;
}
