import 'reflect-metadata';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CRLDistributionPointsExtension } from '@peculiar/x509';
import type { JsonObject } from '@sealpod/protocol/json';
import { failures } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  listFolder,
  listService,
  type NvidiaListSource,
  storedLists,
} from '../../endorsements/nvidia/revocation-lists.ts';
import { SeenBefore } from '../../endorsements/seen-before.ts';
import { type Issued, issue } from '../testing/authority.ts';
import { readNvidiaConfig } from './config.ts';
import { nvidiaVerifier } from './index.ts';
import {
  compositeDeviceId,
  deviceEvidence,
  listRules,
  mintReport,
  nvidiaRules,
  revocationList,
  type TestDevice,
  type TestNvidia,
  testDevice,
  testNvidia,
} from './testing/mint.ts';

const now = new Date('2026-06-01T00:00:00Z');
const reportData = Buffer.alloc(48, 3);
const nonce = reportData.subarray(0, 32);
let nvidia: TestNvidia;
let gpu: TestDevice;

beforeAll(async () => {
  nvidia = await testNvidia();
  gpu = await testDevice(nvidia);
});

const evidenceOf = (device: TestDevice): JsonObject => ({
  device_evidence_list: [deviceEvidence(mintReport(device, { nonce }), device.chain)],
});
const lists = (texts: Readonly<Record<string, Buffer>>): readonly NvidiaListSource[] => listRules(texts).sources;

async function verified(
  sources: readonly NvidiaListSource[],
  withManifests = false,
  device = gpu,
  { seen } = listRules({}),
) {
  const { root, manifests } = nvidiaRules(nvidia);
  const revocationLists = { sources, seen };
  const verifier = nvidiaVerifier({ root, revocationLists, ...(withManifests ? { manifests } : {}) });
  const { verdict, submodules } = await verifier.verify(evidenceOf(device), {
    reportData,
    trustedAttestationKeys: [],
    now,
  });
  return {
    refused: failures(verdict).map(({ check, code }) => `${check}: ${code}`),
    said: submodules?.map(({ claims }) => (claims['sealpod'] as JsonObject)['revocation_lists']),
  };
}
const forIdentity = 'revocation list for CN=Test Identity';
const forManifests = 'revocation list for CN=Test Manifest CA';

describe('revocation lists of NVIDIA', () => {
  it('that are current and name nobody let a device pass, and claims say so', async () => {
    const source = lists({ '/crl/l1-root.crl': await revocationList(nvidia.root) });
    expect(await verified(source)).toEqual({ refused: [], said: ['good'] });
    const both = lists({
      '/crl/l1-root.crl': await revocationList(nvidia.root),
      '/crl/corim-l1.crl': await revocationList(nvidia.manifestRoot),
    });
    expect(await verified(both, true)).toEqual({ refused: [], said: ['good'] });
  });

  it.each<[string, () => Promise<Buffer | undefined>, string]>([
    ['names it', () => revocationList(nvidia.root, [nvidia.identity]), 'EV_CERT_REVOKED'],
    ['is missing', async () => undefined, 'EV_COLLATERAL_UNAVAILABLE'],
    ['has ended', () => revocationList(nvidia.root, [], new Date('2026-05-31T00:00:00Z')), 'EV_COLLATERAL_EXPIRED'],
    ['another signed', () => revocationList(nvidia.manifestRoot), 'EV_SIGNATURE'],
    ['is none', async () => Buffer.from('no list'), 'EV_FORMAT'],
  ])('refuse a device where its list %s', async (_, make, code) => {
    const list = await make();
    const found = await verified(lists(list === undefined ? {} : { '/crl/l1-root.crl': list }));
    expect(found.refused).toEqual([`${forIdentity}: ${code}`]);
  });

  it('refuse the signer of a manifest too', async () => {
    const source = lists({
      '/crl/l1-root.crl': await revocationList(nvidia.root),
      '/crl/corim-l1.crl': await revocationList(nvidia.manifestRoot, [nvidia.manifestAuthority]),
    });
    expect((await verified(source, true)).refused).toEqual(Array(2).fill(`${forManifests}: EV_CERT_REVOKED`));
  });

  it('of a later source are used where an earlier one is stale', async () => {
    const stale = lists({ '/crl/l1-root.crl': await revocationList(nvidia.root, [], new Date('2026-05-02')) });
    const current = lists({ '/crl/l1-root.crl': await revocationList(nvidia.root) });
    expect((await verified([...stale, ...current])).refused).toEqual([]);
  });

  it('G-19: that are older than one seen before are refused, though their signature and dates hold', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'nvidia-seen-'));
    const storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
    try {
      const of = async (thisUpdate: string, revoked: readonly Issued[] = []) =>
        lists({
          '/crl/l1-root.crl': await revocationList(nvidia.root, revoked, undefined, new Date(thisUpdate)),
        });
      // Each time as after a restart: the memory is the storage's.
      const refusedFor = async (sources: readonly NvidiaListSource[]) => {
        const seen = new SeenBefore(storage, 'nvidia');
        return (await verified(sources, false, gpu, { seen, sources })).refused;
      };
      const older = await of('2026-05-01T00:00:00Z');
      const newer = await of('2026-05-20T00:00:00Z', [nvidia.identity]);
      expect(await refusedFor(older)).toEqual([]);
      expect(await refusedFor(newer)).toEqual([`${forIdentity}: EV_CERT_REVOKED`]);
      expect(await refusedFor(older)).toEqual([`${forIdentity}: EV_COLLATERAL_ROLLBACK`]);
      // A source that lags behind does no harm where the next does not.
      expect(await refusedFor([...older, ...newer])).toEqual([`${forIdentity}: EV_CERT_REVOKED`]);
    } finally {
      await storage.close();
      rmSync(folder, { recursive: true });
    }
  });

  it('are asked for by a path that leads nowhere else', async () => {
    const asked: string[] = [];
    const spy: NvidiaListSource = { name: 'spy', list: async (path) => void asked.push(path) };
    const of = async (url: string): Promise<readonly string[]> => {
      const extension = new CRLDistributionPointsExtension([url]);
      const identity: Issued = await issue(nvidia.root, 'CN=Test Identity', {
        authority: true,
        extensions: [extension],
      });
      const leaf = await issue(identity, 'CN=GH100 A01 GSP FMC LF', { extensions: [compositeDeviceId()] });
      return (await verified([spy], false, { leaf, chain: [leaf, identity, nvidia.root] })).refused;
    };
    for (const url of ['http://crl.test/../etc/x.crl', 'http://other.test/a/b.crl?c=d'])
      expect(await of(url)).toEqual([`${forIdentity}: EV_COLLATERAL_UNAVAILABLE`]);
    for (const url of ['http://crl.test/', 'http://crl.test/a%2f..%2fb.crl', 'ldap://crl.test/x.crl'])
      expect(await of(url), url).toEqual([`${forIdentity}: EV_FORMAT`]);
    expect(asked).toEqual(['/etc/x.crl', '/a/b.crl']);
  });
});

describe('places of revocation lists', () => {
  it('are a folder, or a service whose answers are kept', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'nvidia-lists-'));
    const list = await revocationList(nvidia.root);
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(request.url === '/crl/l1-root.crl' ? 200 : 404).end(list);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const storage = await openStorage({ path: join(folder, 'db.sqlite') });
    try {
      const { port } = server.address() as AddressInfo;
      const service = storedLists(listService(`http://127.0.0.1:${port}/`), storage, () => new Date());
      expect((await verified([service])).refused).toEqual([]);
      expect((await verified([service])).refused).toEqual([]);
      expect(asked).toEqual(['/crl/l1-root.crl']);
      expect(await service.list('/crl/other.crl')).toBeUndefined();
      expect((await verified([listFolder(folder)])).refused).toEqual([`${forIdentity}: EV_COLLATERAL_UNAVAILABLE`]);
      writeFileSync(join(folder, 'l1-root.crl'), list);
      expect((await verified([listFolder(folder)])).refused).toEqual([]);
      mkdirSync(join(folder, 'l2.crl'));
      await expect(listFolder(folder).list('/crl/l2.crl')).rejects.toMatchObject({ code: 'EV_COLLATERAL_UNAVAILABLE' });
    } finally {
      server.closeAllConnections();
      server.close();
      await storage.close();
      rmSync(folder, { recursive: true });
    }
  });

  it('are configured as those of manifests', () => {
    const read = (revocationLists: object[]) =>
      readNvidiaConfig({ verifier: 'local', revocationLists } as JsonObject, (path) => `/etc/${path}`).revocationLists;
    expect(read([{ type: 'folder', folder: 'crl' }, { type: 'service' }])).toEqual([
      { type: 'folder', folder: '/etc/crl' },
      { type: 'service' },
    ]);
    for (const wrong of [[{ type: 'other' }], [{ type: 'folder' }], [{ type: 'service', url: 'file:///x' }]])
      expect(() => read(wrong)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});
