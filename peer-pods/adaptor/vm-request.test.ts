import { SealpodError } from '@sealpod/protocol/errors';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseConfig } from './config.ts';
import { parseVmRequest } from './vm-request.ts';

const config = parseConfig('{"provider":{"name":"qemu"}}', 'test');
const parse = (annotations: Record<string, string>, id = 'abcdefgh1234') =>
  parseVmRequest({ id, annotations, networkNamespacePath: '' }, config);
const prefix = 'io.katacontainers.config.hypervisor.';

describe('a CreateVM request', () => {
  it('takes the defaults where the shim sends nothing, zero, or what is no number', () => {
    for (const value of [undefined, '', '0', '-1', 'many', '1e3', '0.0']) {
      const annotations =
        value === undefined ? {} : { [`${prefix}default_vcpus`]: value, [`${prefix}default_memory`]: value };
      expect(parse(annotations)).toMatchObject({ vcpus: 1, memoryMiB: 512, initdata: undefined, netnsPath: undefined });
    }
    expect(parse({ [`${prefix}default_vcpus`]: '2.5', [`${prefix}default_memory`]: '2048' })).toMatchObject({
      vcpus: 3,
      memoryMiB: 2048,
    });
  });

  it('hands on the image that the pod asks for, and nothing where it asks for none', () => {
    expect(parse({ [`${prefix}image`]: 'altered' }).image).toBe('altered');
    expect(parse({ [`${prefix}image`]: '' }).image).toBeUndefined();
  });

  it("names the instance after the pod, by containerd's and CRI-O's annotations", () => {
    expect(parse({ 'io.kubernetes.cri.sandbox-name': 'Web.App_1' }).name).toBe('podvm-web-app-1-abcdefgh');
    expect(parse({ 'io.kubernetes.cri-o.SandboxName': 'k8s_web_default_uid_0' }).name).toBe('podvm-web-abcdefgh');
    expect(parse({}).name).toBe('podvm-pod-abcdefgh');
  });

  it('any pod name and id give a name of at most 63 letters, digits and dashes', () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 300 }),
        fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,80}[A-Za-z0-9]$/),
        (pod, id) => {
          expect(parse({ 'io.kubernetes.cri.sandbox-name': pod }, id).name).toMatch(
            /^podvm-[a-z0-9-]{1,52}-[a-z0-9-]{0,7}[a-z0-9]$/,
          );
        },
      ),
    );
  });

  it('G-24: an id is one harmless path segment or refused', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (id) => {
        try {
          parse({}, id);
        } catch (error) {
          expect((error as SealpodError).code).toBe('REQUEST_FORMAT');
          return;
        }
        expect(id).toMatch(/^[\w.-]+$/);
        expect(id).not.toMatch(/^\.|\.$/);
      }),
    );
  });

  it('keeps the initdata byte for byte', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (text) => {
        expect(Buffer.from(parse({ [`${prefix}cc_init_data`]: text }).initdata ?? []).toString('utf8')).toBe(text);
      }),
    );
  });
});

describe('the configuration', () => {
  it('has defaults for everything but the provider', () => {
    expect(config).toMatchObject({
      socket: '/run/peerpod/hypervisor.sock',
      podsDirectory: '/run/peerpod/pods',
      limits: { sandboxes: 100 },
    });
  });

  it.each([
    ['{', 'is not JSON'],
    ['[]', 'is not a JSON object'],
    ['{}', '"provider.name" is missing'],
    ['{"provider":{"name":"x"},"sokcet":"/a"}', 'unknown member "sokcet"'],
    ['{"provider":{"name":"x"},"socket":"a"}', '"socket" must be an absolute path'],
    ['{"provider":{"name":"x"},"limits":{"vcpus":0}}', '"limits.vcpus" must be a positive integer'],
    ['{"provider":{"name":"x"},"limits":{"cpus":1}}', 'unknown member "limits.cpus"'],
    ['{"provider":{"name":"x"},"limits":3}', '"limits" must be an object'],
    ['{"provider":{"name":"x"},"startTimeoutMs":"5"}', '"startTimeoutMs" must be a positive integer'],
    ['{"provider":{"name":"x"},"logLevel":"loud"}', '"logLevel" must be'],
  ])('%s is refused', (text, reason) => {
    expect(() => parseConfig(text, 'file')).toThrow(`configuration file: ${reason}`);
    expect(() => parseConfig(text, 'file')).toThrow(SealpodError);
  });
});
