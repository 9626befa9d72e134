import type { ChartValues } from '@sealpod/deployment';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, parseJson } from '@sealpod/protocol/json';

const code = 'USAGE';

/** The controller's configuration file (JSON), as the chart writes it. */
export interface ControllerConfig {
  readonly namespaces: { readonly system: string; readonly nodes: string };
  /** Namespaces beside `system` in which TrustServices are looked after. */
  readonly trustNamespaces: readonly string[];
  readonly images: ChartValues['runtime']['images'];
  readonly networkPolicies: ChartValues['networkPolicies'];
  /** Nodes of the runtime, and the folder that is ours there. */
  readonly nodes: {
    readonly nodeSelector: Readonly<Record<string, string>>;
    readonly tolerations: readonly JsonObject[];
    readonly stateDirectory: string;
  };
  readonly resyncSeconds: number;
  readonly healthPort: number;
  readonly logLevel: string;
}

/** Parses a configuration file. @throws SealpodError USAGE, naming the member that is missing or of the wrong kind */
export function parseControllerConfig(text: string, source: string): ControllerConfig {
  const what = `configuration ${source}`;
  const document = asJsonObject(parseJson(text, { maxSize: 1 << 20, what, code }), what, code);
  const member = <T extends JsonValue>(from: JsonObject, name: string, is: (value: JsonValue) => value is T): T => {
    const value = optionalMember(from, name);
    if (value !== undefined && is(value)) return value;
    throw new SealpodError(code, `${what}: "${name}" is missing or not what it has to be`);
  };
  const [namespaces, images, networkPolicies, nodes] = ['namespaces', 'images', 'networkPolicies', 'nodes'].map(
    (name) => member(document, name, isObject),
  ) as [JsonObject, JsonObject, JsonObject, JsonObject];
  return {
    namespaces: { system: member(namespaces, 'system', isText), nodes: member(namespaces, 'nodes', isText) },
    trustNamespaces: member(document, 'trustNamespaces', isTexts),
    images: {
      node: member(images, 'node', isText),
      services: member(images, 'services', isText),
      pullPolicy: member(images, 'pullPolicy', isText),
      pullSecrets: member(images, 'pullSecrets', isTexts),
    },
    networkPolicies: {
      enabled: member(networkPolicies, 'enabled', isFlag),
      apiServerPorts: member(networkPolicies, 'apiServerPorts', isNumbers),
      metricsFrom: member(networkPolicies, 'metricsFrom', isTextMap),
      guestsFrom: member(networkPolicies, 'guestsFrom', isTexts),
    },
    nodes: {
      nodeSelector: member(nodes, 'nodeSelector', isTextMap),
      tolerations: member(nodes, 'tolerations', isObjects),
      stateDirectory: member(nodes, 'stateDirectory', isText),
    },
    resyncSeconds: member(document, 'resyncSeconds', isCount),
    healthPort: member(document, 'healthPort', isCount),
    logLevel: member(document, 'logLevel', isText),
  };
}

const isText = (value: JsonValue): value is string => typeof value === 'string' && value !== '';
const isFlag = (value: JsonValue): value is boolean => typeof value === 'boolean';
const isCount = (value: JsonValue): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0;
const isObject = (value: JsonValue): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isTexts = (value: JsonValue): value is readonly string[] => Array.isArray(value) && value.every(isText);
const isNumbers = (value: JsonValue): value is readonly number[] => Array.isArray(value) && value.every(isCount);
const isObjects = (value: JsonValue): value is readonly JsonObject[] => Array.isArray(value) && value.every(isObject);
const isTextMap = (value: JsonValue): value is Readonly<Record<string, string>> & JsonObject =>
  isObject(value) && Object.values(value).every((item) => typeof item === 'string');
