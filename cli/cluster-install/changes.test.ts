import { expect, test } from 'vitest';
import { compareManifests } from './changes.ts';

const daemonSet = (image: string, unavailable = 1) => `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: nodes}
spec:
  updateStrategy: {rollingUpdate: {maxUnavailable: ${unavailable}}}
  template: {spec: {containers: [{name: agent, image: ${image}}]}}
`;
const configMap = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n';

test('equal objects in another order are no change', () => {
  const one = `${daemonSet('a')}---\n${configMap}`;
  const two = `---\n# a comment\n${configMap}---\n${daemonSet('a')}---\n`;
  expect(compareManifests(one, two)).toEqual([]);
});

test('says what is created, deleted and changed, and whether pods are replaced', () => {
  expect(compareManifests(daemonSet('a'), `${daemonSet('b', 2)}---\n${configMap}`)).toEqual([
    { object: 'ConfigMap settings', change: 'create', fields: [], effect: '' },
    {
      object: 'DaemonSet nodes/agent',
      change: 'change',
      fields: ['spec.updateStrategy.rollingUpdate.maxUnavailable', 'spec.template.spec.containers[0].image'],
      effect: 'its pods are replaced, node by node; sealed pods go on',
    },
  ]);
  expect(compareManifests(`${daemonSet('a')}---\n${configMap}`, daemonSet('a', 3))).toEqual([
    { object: 'ConfigMap settings', change: 'delete', fields: [], effect: '' },
    {
      object: 'DaemonSet nodes/agent',
      change: 'change',
      fields: ['spec.updateStrategy.rollingUpdate.maxUnavailable'],
      effect: '',
    },
  ]);
});
