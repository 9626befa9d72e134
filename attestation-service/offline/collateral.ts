import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import type { AttestationServiceConfig } from '../config.ts';
import { readServiceConfig } from '../main-config.ts';
import type { EvidenceInFile } from './recognise.ts';

/** The file of a folder that configures verifiers by hand. */
const configurationFile = 'verifiers.json';

/**
 * The configuration of a service that verifies without network, with what a folder holds. Each entry stands for one TEE, or
 * for several that share collateral, and tells what a folder must hold for it by convention.
 */
const conventions: readonly ((folder: string | undefined) => AttestationServiceConfig)[] = [
  // As upstream's offline store has it: vcek/<chip id>/…der, and crl/<generation>.crl beside it.
  (folder) => ({ snp: { sources: folder === undefined ? [] : [{ type: 'offline', folder }] } }),
  // Files of Intel's PCS Client Tool, or the collateral of a quote as JSON: intel/.
  (folder) => {
    const path = folder === undefined ? '' : join(folder, 'intel');
    return { dcap: { sources: existsSync(path) ? [{ type: 'bundle', path }] : [] } };
  },
  // One file a root: tpm/<name>.pem, simulated ones as tpm/<name>.simulated.pem.
  (folder) => ({ tpm: { roots: tpmRoots(folder) } }),
  // As upstream has it: csv/hsk_cek/<chip>/hsk_cek.cert, for accelerators too.
  (folder) => {
    const sources = folder === undefined ? [] : [{ type: 'offline' as const, folder: join(folder, 'csv') }];
    return { csv: { sources }, hygondcu: { sources } };
  },
  // Reference manifests of NVIDIA: nvidia/.
  (folder) => ({
    nvidia: {
      verifier: 'local',
      manifests: folder === undefined ? [] : [{ type: 'folder' as const, folder: join(folder, 'nvidia') }],
    },
  }),
  // The root of AWS comes with the service.
  () => ({ nitro: {} }),
  // Upstream's stores: cca/tastore.json and cca/rvstore.json.
  (folder) => {
    const [trustAnchorFile, referenceValueFile] = ['tastore.json', 'rvstore.json'].map((name) =>
      folder === undefined ? '' : join(folder, 'cca', name),
    );
    return trustAnchorFile !== undefined && referenceValueFile !== undefined && existsSync(trustAnchorFile)
      ? { cca: { platforms: { type: 'local', trustAnchorFile, referenceValueFile } } }
      : {};
  },
];

function tpmRoots(folder: string | undefined): { name: string; certificates: string; simulated: boolean }[] {
  const directory = folder === undefined ? undefined : join(folder, 'tpm');
  if (directory === undefined || !existsSync(directory)) return [];
  return readdirSync(directory)
    .filter((name) => name.endsWith('.pem'))
    .map((name) => ({
      name: name.replace(/(\.simulated)?\.pem$/, ''),
      certificates: readFileSync(join(directory, name), 'utf8'),
      simulated: name.endsWith('.simulated.pem'),
    }));
}

/**
 * Reads the collateral in a folder. `verifiers.json`, with the members of the service's own configuration and paths
 * relative to the folder, takes the place of the conventions for the TEEs that it names.
 *
 * @throws SealpodError USAGE where the folder or the file is unusable
 */
export function offlineConfiguration(folder?: string): AttestationServiceConfig {
  const directory = folder === undefined ? undefined : resolve(folder);
  if (directory !== undefined && !(existsSync(directory) && statSync(directory).isDirectory()))
    throw new SealpodError('USAGE', 'there is no folder of collateral', { actual: folder ?? '' });
  const byConvention = Object.assign({}, ...conventions.map((read) => read(directory))) as AttestationServiceConfig;
  const file = directory === undefined ? undefined : join(directory, configurationFile);
  if (directory === undefined || file === undefined || !existsSync(file)) return byConvention;
  const at = (path: string): string => resolve(directory, path);
  const root: JsonValue = parseJson(readFileSync(file), { what: configurationFile, code: 'USAGE' });
  return { ...byConvention, ...readServiceConfig(asJsonObject(root, configurationFile, 'USAGE'), at) };
}

/**
 * Adds certificates that lie in a folder by themselves to an SNP report that came without any: `vcek.der`, `vlek.der`, or
 * the same as `.pem`.
 */
export function withCertificates(file: EvidenceInFile, folder: string | undefined): EvidenceInFile {
  const root = file.tee === 'snp' ? (file.evidence as JsonObject) : undefined;
  if (folder === undefined || root === undefined || Array.isArray(root['cert_chain'])) return file;
  const chain = ['vcek', 'vlek'].flatMap((name) => {
    const path = ['der', 'pem'].map((ending) => join(folder, `${name}.${ending}`)).find((one) => existsSync(one));
    return path === undefined ? [] : [{ cert_type: name.toUpperCase(), data: [...readFileSync(path)] }];
  });
  return chain.length === 0 ? file : { ...file, evidence: { ...root, cert_chain: chain } };
}
