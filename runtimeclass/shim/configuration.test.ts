import { expect, test } from 'vitest';
import { defaultConfiguration, parseConfiguration, readConfiguration } from './configuration.ts';

test('JSON and TOML give the same settings over the defaults', () => {
  const json = parseConfiguration('{"hypervisorSocket":"/run/x.sock","createContainerTimeout":20}', 'c.json');
  const toml = parseConfiguration('hypervisorSocket = "/run/x.sock"\ncreateContainerTimeout = 20\n', 'c.toml');
  expect(json).toEqual(toml);
  expect(json).toEqual({ ...defaultConfiguration, hypervisorSocket: '/run/x.sock', createContainerTimeout: 20 });
});

test.each([
  ['{"hypervisorSokcet":"/x"}', /unknown setting "hypervisorSokcet"/],
  ['{"debug":"yes"}', /debug has the wrong type/],
  ['{"agentTimeout":-1}', /agentTimeout has the wrong type/],
  ['{"enabledAnnotations":[1]}', /enabledAnnotations has the wrong type/],
  ['{"defaults":{"default_vcpus":2}}', /defaults has the wrong type/],
  ['{', /neither JSON nor TOML/],
  ['= 1', /neither JSON nor TOML/],
])('%s is refused', (text, message) => {
  expect(() => parseConfiguration(text, 'c')).toThrow(message);
});

test('no path means the defaults, a missing file is an error', () => {
  expect(readConfiguration('')).toBe(defaultConfiguration);
  expect(() => readConfiguration('/nonexistent/shim.json')).toThrow(/cannot be read/);
});
