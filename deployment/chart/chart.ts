import type { JsonObject } from '@sealpod/protocol/json';
import { stringify } from 'yaml';
import { version } from '../objects/common.ts';
import { chartObjects } from '../objects/installation.ts';
import { customResourceDefinition, resourceDefinitions } from '../resources/definitions.ts';
import { helmTemplate } from '../template/helm.ts';
import { chartSettings } from '../values/chart.ts';
import { schemaOf } from '../values/json-schema.ts';
import { valuesFile } from './values-file.ts';

const mark = '# Written by `npm run generate`. Change the source in deployment/, not this file.\n';

const description = 'Kubernetes pods in confidential virtual machines; secrets only after remote attestation';

const chartYaml = stringify({
  apiVersion: 'v2',
  name: 'sealpod',
  description,
  type: 'application',
  version,
  appVersion: version,
  kubeVersion: '>=1.30.0-0',
});

const isSet = (name: string, schema: JsonObject): JsonObject => ({ properties: { [name]: schema }, required: [name] });

/** Combinations that a schema of single values does not see: what has to hold where there is no controller. */
const combinations: JsonObject[] = [
  {
    anyOf: [
      isSet('controller', isSet('enabled', { const: true })),
      {
        properties: {
          runtimeManagedBy: { const: 'Chart' },
          runtime: {
            anyOf: [
              isSet('webhook', isSet('enabled', { const: false })),
              isSet('webhook', isSet('caBundle', { minLength: 1 })),
            ],
          },
        },
      },
    ],
  },
];

const notes = `sealpod {{ .Chart.AppVersion }}

{{- if eq .Values.runtimeManagedBy "Chart" }}

Nodes get the runtime now; they are labelled sealpod.io/runtime=true when everything on them serves:
  kubectl get nodes -l sealpod.io/runtime=true
  kubectl -n {{ .Values.namespaces.nodes }} get pods

A pod then needs
  runtimeClassName: sealpod
and the annotation that \`sealpod transform\` writes.
{{- else }}

The controller waits for a SealpodRuntime:
  kubectl apply -f - <<END
  apiVersion: sealpod.io/v1alpha1
  kind: SealpodRuntime
  metadata: { name: sealpod }
  END
{{- end }}
{{- if eq .Release.Namespace .Values.namespaces.system }}

Helm made the namespace of this release without labels. Hold its pods to the Pod Security Standards:
  kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=restricted
{{- end }}

\`helm uninstall\` takes the runtime off the nodes first. Helm keeps CustomResourceDefinitions, and so TrustServices and
their secrets.
`;

/** Every file of the chart by its path in the chart's folder. */
export function chartFiles(): ReadonlyMap<string, string> {
  const schema = { $schema: 'http://json-schema.org/draft-07/schema#', ...schemaOf(chartSettings, 'helm') };
  return new Map([
    ['Chart.yaml', mark + chartYaml],
    ['values.yaml', mark + valuesFile(chartSettings)],
    ['values.schema.json', `${JSON.stringify({ ...schema, allOf: combinations }, null, 2)}\n`],
    ['.helmignore', '*.tgz\n'],
    ['templates/NOTES.txt', notes],
    ...Object.entries(chartObjects).map(([name, objects]): [string, string] => [
      `templates/${name}.yaml`,
      mark + helmTemplate(objects),
    ]),
    ...resourceDefinitions.map((definition): [string, string] => [
      `crds/${definition.plural}.yaml`,
      mark + stringify(customResourceDefinition(definition), { lineWidth: 120 }),
    ]),
  ]);
}
