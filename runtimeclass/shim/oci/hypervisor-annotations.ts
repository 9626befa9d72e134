import { gunzipSync } from 'node:zlib';
import { SealpodError } from '@sealpod/protocol/errors';
import type { ShimConfiguration } from '../configuration.ts';
import { podName } from './annotations.ts';
import type { Specification } from './specification.ts';

const prefix = 'io.katacontainers.config.hypervisor.';
/** What CreateVM carries (kata.md §3.2); a value that is not set is sent empty. */
const forwarded = [
  'machine_type',
  'image',
  'default_vcpus',
  'default_memory',
  'default_gpus',
  'default_gpu_model',
  'cc_init_data',
] as const;

/** CreateVM has to fit one ttrpc message of 4 MiB with all the rest. */
const initdataLimit = 3 * 1024 * 1024;

/**
 * The initdata document (TOML text) of a pod annotation: base64 of gzip.
 *
 * Not verified: neither its schema nor its digest; the guest measures exactly these bytes.
 *
 * @throws SealpodError INITDATA_SCHEMA for other encodings, text that is not UTF-8, and more than 3 MiB.
 */
export function decodeInitdataAnnotation(annotation: string): string {
  const refuse = (message: string, cause?: unknown) =>
    new SealpodError('INITDATA_SCHEMA', `annotation ${prefix}cc_init_data: ${message}`, {
      expected: 'base64 of gzip of a TOML document',
      cause,
    });
  if (annotation.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(annotation)) throw refuse('not base64');
  let document: Buffer;
  try {
    document = gunzipSync(Buffer.from(annotation, 'base64'), { maxOutputLength: initdataLimit });
  } catch (cause) {
    throw refuse(`does not decompress to at most ${initdataLimit} bytes: ${String(cause)}`, cause);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(document);
  } catch (cause) {
    throw refuse('not UTF-8', cause);
  }
}

/**
 * The annotations of CreateVM for a sandbox: its name, namespace and uid, and the hypervisor settings the operator enabled.
 *
 * @throws SealpodError POLICY_DENY for a setting the operator did not enable: it must not be dropped silently.
 */
export function hypervisorAnnotations(
  specification: Specification,
  configuration: Pick<ShimConfiguration, 'enabledAnnotations' | 'defaults'>,
): Record<string, string> {
  const { name, namespace, uid } = podName(specification);
  const annotations: Record<string, string> = {
    'io.kubernetes.cri.sandbox-name': name,
    'io.kubernetes.cri.sandbox-namespace': namespace,
    ...(uid === '' ? {} : { 'io.kubernetes.cri.sandbox-uid': uid }),
  };
  for (const key of Object.keys(specification.annotations ?? {})) {
    if (!key.startsWith(prefix)) continue;
    if (configuration.enabledAnnotations.includes(key.slice(prefix.length))) continue;
    throw new SealpodError('POLICY_DENY', `annotation ${key} is not enabled`, {
      expected: configuration.enabledAnnotations.join(', '),
      actual: key,
      fix: 'remove it from the pod, or add it to enabledAnnotations of the shim configuration',
    });
  }
  for (const key of forwarded) {
    const value = specification.annotations?.[prefix + key] ?? configuration.defaults[key] ?? '';
    annotations[prefix + key] = key === 'cc_init_data' && value !== '' ? decodeInitdataAnnotation(value) : value;
  }
  return annotations;
}
