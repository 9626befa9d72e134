import { asSealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { type NvidiaDevice, OpaqueType, parseNvidiaEvidence, parseNvidiaReport } from '@sealpod/protocol/nvidia';
import { regularise } from '@sealpod/protocol/rcar';
import { passed, type Verdict } from '@sealpod/protocol/verdict';
import type { Storage } from '@sealpod/storage';
import { parsePemCertificates } from '../../endorsements/certificate.ts';
import type { EnrolledRoot } from '../../endorsements/certificate-path.ts';
import { firmwareIds } from '../../endorsements/dice.ts';
import { nvidiaDeviceRoot, nvidiaManifestRoot } from '../../endorsements/nvidia/certificates.ts';
import {
  type ManifestSource,
  manifestFolder,
  manifestService,
  storedManifests,
} from '../../endorsements/nvidia/manifests.ts';
import { type RemoteService, remoteService } from '../../endorsements/nvidia/remote.ts';
import { listFolder, listService, storedLists } from '../../endorsements/nvidia/revocation-lists.ts';
import { askOcsp } from '../../endorsements/ocsp.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import { sentPath } from '../certificate-chain.ts';
import { allOf, check } from '../check.ts';
import type { Expectations, SubmoduleClaims, Verification, Verifier } from '../verifier.ts';
import { deviceClaims, deviceClass, words } from './claims.ts';
import type { NvidiaConfig } from './config.ts';
import { manifestClaims } from './manifest-claims.ts';
import {
  type FoundManifest,
  findManifest,
  type ManifestRules,
  verifyManifests,
  wantedManifests,
  withinValidity,
} from './manifests.ts';
import { type AskRevocation, checkRevocation } from './revocation.ts';
import { checkLists, type RevocationListRules } from './revocation-lists.ts';
import { type DeviceLinks, protectedTopology } from './topology.ts';
import { checkDistinct, type DeviceStatement, verifyDevice } from './verify.ts';

/** What local verification goes by. */
export interface NvidiaRules {
  readonly root: EnrolledRoot;
  /** Undefined: measurements are told and not compared. */
  readonly manifests?: ManifestRules & { readonly sources: readonly ManifestSource[] };
  /** Undefined: revocation is not asked for. */
  readonly revocation?: AskRevocation;
  /** Undefined: revocation lists are not looked at. */
  readonly revocationLists?: RevocationListRules;
}

/** The verifier of a configuration, under NVIDIA's own roots. */
export function nvidiaVerifierOf(config: NvidiaConfig, storage: Storage, now: () => Date): Verifier {
  if (config.verifier === 'remote') return remoteNvidiaVerifier(remoteService(config.remote));
  const { manifests = [], revocationLists = [], ocspUrl } = config;
  const sources = manifests.map((source) =>
    source.type === 'folder'
      ? manifestFolder(source.folder)
      : storedManifests(manifestService(source.url), storage, now),
  );
  const acceptExpiredSigners = config.acceptExpiredManifests ?? false;
  const lists = revocationLists.map((source) =>
    source.type === 'folder' ? listFolder(source.folder) : storedLists(listService(source.url), storage, now),
  );
  return nvidiaVerifier({
    root: nvidiaDeviceRoot,
    ...(lists.length === 0 ? {} : { revocationLists: { sources: lists, seen: new SeenBefore(storage, 'nvidia') } }),
    ...(sources.length === 0 ? {} : { manifests: { root: nvidiaManifestRoot, acceptExpiredSigners, sources } }),
    ...(ocspUrl === undefined
      ? {}
      : { revocation: (subject, issuer, at) => askOcsp(ocspUrl, subject, issuer, { now: at }) }),
  });
}

/** Verifies GPUs and switches here. Devices that verified make submodules `gpu` and `switch`, and a whole topology `ppcie`. */
export function nvidiaVerifier(rules: NvidiaRules): Verifier {
  return {
    tee: 'nvidia',
    verify: async (evidence, expectations) => {
      const statements = parseNvidiaEvidence(evidence).map(parseDevice);
      const outcomes = await Promise.all(statements.map((statement) => verifyOne(statement, rules, expectations)));
      const links = statements.map((statement) => linksOf(statement));
      return verification(
        [checkDistinct(statements), ...outcomes.map(({ verdict }) => verdict)],
        outcomes.map(({ submodule }) => submodule),
        protectedTopology(links),
      );
    },
  };
}

function verification(
  verdicts: readonly Verdict[],
  submodules: readonly SubmoduleClaims[],
  topology: SubmoduleClaims | undefined,
): Verification {
  return {
    verdict: allOf('nvidia evidence', verdicts),
    claims: {},
    submodules: [...submodules, ...(topology === undefined ? [] : [topology])],
  };
}

type Parsed = DeviceStatement & { readonly device: NvidiaDevice };

function parseDevice(device: NvidiaDevice): Parsed {
  const certificates = parsePemCertificates(device.certificates);
  const [leaf] = certificates;
  const { architecture, uuid } = device;
  return {
    device,
    architecture,
    uuid,
    report: parseNvidiaReport(device.report),
    certificates,
    firmwareIds: leaf && firmwareIds(leaf),
  };
}

async function verifyOne(
  statement: Parsed,
  { root, manifests, revocation, revocationLists }: NvidiaRules,
  { reportData, now }: Expectations,
): Promise<{ readonly verdict: Verdict; readonly submodule: SubmoduleClaims }> {
  const teeClass = deviceClass(statement.architecture);
  const own = deviceClaims(statement.device, statement.report);
  const device = verifyDevice(statement, root, { ...(reportData === undefined ? {} : { reportData }), now });
  const listed = revocationLists !== undefined;
  const plain = { teeClass, claims: { ...own, sealpod: details(statement, listed) } };
  // Nothing is asked for in the name of a device that is none.
  if (!passed(device)) return { verdict: device, submodule: plain };
  const checks: Verdict[] = [device];
  const path = sentPath(statement.certificates, root, now);
  if (revocation !== undefined)
    checks.push(await checkRevocation('revocation of the device', path, 1, revocation, now));
  if (revocationLists !== undefined)
    checks.push(await checkLists('revocation lists of the device', path, revocationLists, now));
  if (manifests === undefined) return { verdict: allOf(device.check, checks), submodule: plain };
  const found = await findManifests(statement, manifests.sources);
  checks.push(verifyManifests(statement.report, found, manifests, now));
  for (const { id, manifest } of found) {
    if (manifest === undefined) continue;
    const at = manifests.acceptExpiredSigners ? withinValidity(manifest, now) : now;
    const chain = sentPath(manifest.certificates, manifests.root, at);
    if (revocation !== undefined)
      checks.push(await checkRevocation(`revocation of the signer of ${id}`, chain, 0, revocation, now));
    if (revocationLists !== undefined)
      checks.push(await checkLists(`revocation lists of the signer of ${id}`, chain, revocationLists, now));
  }
  const verdict = allOf(device.check, checks);
  // Nothing is told to have matched that did not, though nobody uses the claims of a verdict that failed.
  if (!passed(verdict)) return { verdict, submodule: plain };
  const compared = manifestClaims(statement, found, revocation !== undefined, now);
  return {
    verdict,
    submodule: { teeClass, claims: { ...own, ...compared, sealpod: details(statement, listed) } },
  };
}

function findManifests({ architecture, report }: Parsed, sources: readonly ManifestSource[]): Promise<FoundManifest[]> {
  return Promise.all(wantedManifests(architecture, report).map((wanted) => findManifest(wanted, sources)));
}

/** What upstream's claims leave out. `revocation_lists` holds, as all claims do, where the verdict passed. */
function details({ certificates, report, firmwareIds: identities }: Parsed, listed: boolean): JsonObject {
  return {
    key_fingerprint: certificates[0]?.x509.fingerprint256.replaceAll(':', '').toLowerCase() ?? null,
    firmware_ids: identities?.map(({ digest }) => digest.toString('hex')) ?? null,
    revocation_lists: listed ? 'good' : null,
    opaque_header_version: report.response.opaqueData.headerVersion ?? null,
  };
}

const gpuPeerBytes = 64;

/** Whom a device names as its peers: a GPU lists a switch for each of its links, a switch eight GPUs and then their ports. */
function linksOf({ architecture, report }: Parsed): DeviceLinks {
  const { fields } = report.response.opaqueData;
  const teeClass = deviceClass(architecture);
  const field = fields.get(teeClass === 'gpu' ? OpaqueType.switchPdi : OpaqueType.switchGpuPdis);
  if (field === undefined) return { teeClass, peers: [] };
  const value = teeClass === 'gpu' ? field.value : field.value.subarray(0, gpuPeerBytes);
  return { teeClass, peers: words({ ...field, value }, 8).map((pdi) => pdi.toString('hex')) };
}

/** Has NVIDIA's service verify the devices, an architecture in one request; claims are those of its tokens. */
export function remoteNvidiaVerifier(service: RemoteService): Verifier {
  return {
    tee: 'nvidia',
    verify: async (evidence, { reportData, now }) => {
      const devices = parseNvidiaEvidence(evidence);
      if (reportData === undefined) {
        const unbound = check('nonce', false, 'EV_BINDING_MISMATCH', {
          expected: 'runtime data to bind the report to',
        });
        return verification([unbound], [], undefined);
      }
      const nonce = regularise(reportData, 32).toString('hex');
      const architectures = [...new Set(devices.map(({ architecture }) => architecture))];
      const claims = new Map<NvidiaDevice, JsonObject>();
      const verdicts = await Promise.all(
        architectures.map(async (architecture): Promise<Verdict> => {
          const own = devices.filter((device) => device.architecture === architecture);
          const name = `${architecture} devices at the ${service.name}`;
          try {
            const requests = own.map(({ report, certificates }) => ({
              evidence: report.toString('base64'),
              certificate: Buffer.from(certificates, 'latin1').toString('base64'),
            }));
            const answers = await service.attest(architecture, nonce, requests, now);
            for (const [index, device] of own.entries()) claims.set(device, answers[index] ?? {});
            return allOf(
              name,
              answers.map((answer) => checkRemoteNonce(answer, deviceClass(architecture))),
            );
          } catch (thrown) {
            const { code, message, detail } = asSealpodError(thrown);
            return { check: name, code, ...detail, actual: `${message}: ${detail.actual ?? ''}` };
          }
        }),
      );
      const submodules = devices.map((device) => ({
        teeClass: deviceClass(device.architecture),
        claims: claims.get(device) ?? {},
      }));
      const links = submodules.map(({ teeClass, claims: own }) => remoteLinks(teeClass, own));
      return verification(verdicts, submodules, protectedTopology(links));
    },
  };
}

function checkRemoteNonce(claims: JsonObject, kind: 'gpu' | 'switch'): Verdict {
  const name = `x-nvidia-${kind}-attestation-report-nonce-match`;
  return check('nonce', claims[name] === true, 'EV_BINDING_MISMATCH', {
    expected: 'true',
    actual: JSON.stringify(claims[name] ?? null),
    source: name,
  });
}

function remoteLinks(teeClass: 'gpu' | 'switch', claims: JsonObject): DeviceLinks {
  const peers: JsonValue | undefined =
    claims[teeClass === 'gpu' ? 'x-nvidia-gpu-switch-pdis' : 'x-nvidia-switch-gpu-pdis'];
  return {
    teeClass,
    peers: Array.isArray(peers) ? peers.filter((peer): peer is string => typeof peer === 'string') : [],
  };
}
