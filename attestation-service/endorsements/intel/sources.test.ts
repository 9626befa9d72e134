import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '@sealpod/protocol/json';
import { openStorage } from '@sealpod/storage';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { enclaveIdentity, platform, signedAnswer, TestIntel, tcbInfo } from '../../verifiers/dcap/testing/mint.ts';
import { pem } from '../../verifiers/testing/authority.ts';
import { SeenBefore } from '../seen-before.ts';
import { collateralBundle } from './bundle.ts';
import { cachedSource } from './cached-source.ts';
import { IntelCollateral } from './collateral.ts';
import { collateralDocument } from './collateral-document.ts';
import { provisioningService } from './provisioning-service.ts';
import type { IntelCollateralSource } from './source.ts';
import { intelService, quoteCollateral, type Serve } from './testing/service.ts';

const now = new Date('2026-06-01T00:00:00Z');
const fmspc = platform.fmspc.toString('hex').toUpperCase();
let intel: TestIntel;
let folder: string;
beforeAll(async () => {
  intel = await TestIntel.create();
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'intel-sources-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** What a source's answers are worth, each by its reason code. */
async function verdicts(source: IntelCollateralSource): Promise<Record<string, string>> {
  const storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
  try {
    const collateral = new IntelCollateral({
      sources: [source],
      root: intel.root,
      seen: new SeenBefore(storage, 'intel'),
      channel: 'early',
    });
    const asked = {
      tdx: collateral.tcbInfo('tdx', fmspc, now),
      sgx: collateral.tcbInfo('sgx', fmspc, now),
      tdQe: collateral.qeIdentity('tdx', now),
      qe: collateral.qeIdentity('sgx', now),
      platform: collateral.pckRevocationList('platform', now),
      processor: collateral.pckRevocationList('processor', now),
      root: collateral.rootRevocationList(now),
    };
    const codes = Object.entries(asked).map(async ([name, one]) => [name, (await one).problem?.code ?? 'ok']);
    return Object.fromEntries(await Promise.all(codes)) as Record<string, string>;
  } finally {
    await storage.close();
  }
}
const all = (code: string): Record<string, string> =>
  Object.fromEntries(['tdx', 'sgx', 'tdQe', 'qe', 'platform', 'processor', 'root'].map((name) => [name, code]));

describe('a provisioning service', () => {
  let server: Server;
  let url: string;
  let asked: string[];
  let serve: Serve;
  const quick = { pauseMs: 1, longestPauseMs: 5, retries: 2, timeoutMs: 20_000 };

  beforeEach(async () => {
    asked = [];
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      void serve(request.url ?? '', response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  const honest = (lists: 'der' | 'hexadecimal' = 'der'): Serve => intelService(intel, {}, lists);
  const pcs = (options = {}): IntelCollateralSource =>
    provisioningService({ kind: 'pcs', url, rootListUrl: `${url}/root.der`, http: quick, ...options });

  it('is asked as Intel specifies it, and believed where what it says is signed', async () => {
    serve = honest();
    expect(await verdicts(pcs({ update: 'early' }))).toEqual(all('ok'));
    expect(asked.sort()).toEqual([
      '/root.der',
      '/sgx/certification/v4/pckcrl?ca=platform&encoding=der',
      '/sgx/certification/v4/pckcrl?ca=processor&encoding=der',
      '/sgx/certification/v4/qe/identity?update=early',
      `/sgx/certification/v4/tcb?fmspc=${fmspc}&update=early`,
      '/tdx/certification/v4/qe/identity?update=early',
      `/tdx/certification/v4/tcb?fmspc=${fmspc}&update=early`,
    ]);
  });

  it('may be a caching service, whose configured address names the interface and whose lists are hexadecimal', async () => {
    serve = honest('hexadecimal');
    const service = provisioningService({ kind: 'pccs', url: `${url}/sgx/certification/v4/`, http: quick });
    expect(await verdicts(service)).toEqual(all('ok'));
    expect(asked).toContain('/sgx/certification/v4/rootcacrl');
    expect(asked).toContain('/tdx/certification/v4/qe/identity');
  });

  it('has the certificate of a platform that its quote does not bring; a caching service only', async () => {
    serve = (_, response) =>
      void response
        .writeHead(200, { 'SGX-PCK-Certificate-Issuer-Chain': encodeURIComponent('THE CHAIN') })
        .end('THE CERTIFICATE');
    const service = provisioningService({ kind: 'pccs', url, http: quick });
    const chain = await service.pckChain?.({
      encryptedPlatformId: Buffer.from('ab', 'hex'),
      cpuSvn: Buffer.alloc(16, 5),
      pceSvn: 0x010d,
      pceId: Buffer.alloc(2),
      qeId: Buffer.alloc(16, 0xc),
    });
    expect(String(chain)).toBe('THE CERTIFICATE\nTHE CHAIN');
    expect(asked).toEqual([
      `/sgx/certification/v4/pckcert?encrypted_ppid=AB&cpusvn=${'05'.repeat(16)}&pcesvn=0D01&pceid=0000&qeid=${'0C'.repeat(16)}`,
    ]);
    expect(pcs().pckChain).toBeUndefined();
  });

  it('that is overloaded is asked again when it says, and not for ever', async () => {
    let refusals = 2;
    serve = (path, response) => {
      refusals -= 1;
      if (refusals >= 0) response.writeHead(429, { 'Retry-After': '1' }).end();
      else void honest()(path, response);
    };
    const begin = performance.now();
    const patient = pcs({ http: { ...quick, longestPauseMs: 40 } });
    expect((await patient.tcbInfo('tdx', fmspc))?.issuerChain).toContain('BEGIN CERTIFICATE');
    // Each pause is what it asks for, up to the longest: not the millisecond of its own.
    expect(performance.now() - begin).toBeGreaterThanOrEqual(75);
    expect(asked.length).toBe(3);
    refusals = 100;
    await expect(pcs().qeIdentity('tdx')).rejects.toMatchObject({
      code: 'EV_COLLATERAL_UNAVAILABLE',
      detail: { actual: 'status 429' },
    });
    expect(asked.length).toBe(6);
  });

  it('that is silent, breaks off, redirects, fails or never ends is away', async () => {
    const impatient = pcs({ http: { ...quick, timeoutMs: 60, retries: 0, maxBytes: 4096 } });
    const faults: Readonly<Record<string, (response: ServerResponse) => void>> = {
      silent: () => undefined,
      slow: (response) => void response.writeHead(200).write('{"tcb'),
      broken: (response) => response.destroy(),
      redirecting: (response) => void response.writeHead(302, { location: `${url}/elsewhere` }).end(),
      failing: (response) => void response.writeHead(500).end(),
      endless: (response) => void response.writeHead(200).end(Buffer.alloc(4097)),
    };
    for (const [name, fault] of Object.entries(faults)) {
      serve = (_, response) => fault(response);
      expect(await verdicts(impatient), name).toEqual(all('EV_COLLATERAL_UNAVAILABLE'));
    }
    expect(asked).not.toContain('/elsewhere');
  });

  it('that has nothing, or answers with something else, is told apart from one that is away', async () => {
    serve = (_, response) => void response.writeHead(404).end();
    expect(await verdicts(pcs())).toEqual(all('EV_COLLATERAL_UNAVAILABLE'));
    for (const content of ['', '<html>', '{}', '[]', '{"tcbInfo":{},"signature":"00"}', '{"tcbInfo":1,"tcbInfo":2}']) {
      serve = (_, response) => void response.writeHead(200, { 'TCB-Info-Issuer-Chain': 'none' }).end(content);
      expect(await verdicts(pcs()), content).toEqual(all('EV_FORMAT'));
    }
    // The signer's certificates are missing, or not what a header may hold.
    for (const chain of [undefined, '%', '%E0%A4%A'])
      for (const header of ['TCB-Info-Issuer-Chain', 'SGX-Enclave-Identity-Issuer-Chain']) {
        const { document } = signedAnswer(intel, 'tcbInfo', tcbInfo('tdx'));
        serve = (_, response) =>
          void response.writeHead(200, chain === undefined ? {} : { [header]: chain }).end(document);
        expect((await verdicts(pcs()))['tdx']).toBe('EV_FORMAT');
      }
  });

  it('that was heard once need not be there, over restarts', async () => {
    const storage = await openStorage({ path: join(folder, 'kept', 'db.sqlite') });
    try {
      serve = honest();
      const open = (): IntelCollateralSource => cachedSource(pcs(), 'early', storage, () => new Date());
      expect(await verdicts(open())).toEqual(all('ok'));
      serve = (_, response) => void response.destroy();
      asked = [];
      expect(await verdicts(open())).toEqual(all('ok'));
      expect(asked).toEqual([]);
    } finally {
      await storage.close();
    }
  });
});

describe('a bundle', () => {
  const write = (name: string, content: unknown): string => {
    const file = join(folder, name);
    mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
    return file;
  };
  const signed = (member: 'tcbInfo' | 'enclaveIdentity', document: Parameters<typeof signedAnswer>[2]): unknown =>
    JSON.parse(signedAnswer(intel, member, document).document.toString());
  const list = async (of: 'root' | 'platform' | 'processor'): Promise<string> =>
    (await intel.revocationList(of)).toString('hex');

  it('may be what the client tool of a caching service writes, with either channel', async () => {
    const signers = encodeURIComponent(pem([intel.tcbSigner, intel.rootAuthority]));
    const early = { tcbEvaluationDataNumber: 18 };
    const file = write('platform_collaterals.json', {
      collaterals: {
        version: 4,
        certificates: {
          'TCB-Info-Issuer-Chain': signers,
          'SGX-Enclave-Identity-Issuer-Chain': signers,
          'SGX-PCK-Certificate-Issuer-Chain': {
            PLATFORM: encodeURIComponent(pem([intel.platform, intel.rootAuthority])),
            PROCESSOR: encodeURIComponent(pem([intel.processor, intel.rootAuthority])),
          },
        },
        tcbinfos: [
          {
            fmspc: fmspc.toLowerCase(),
            sgx_tcbinfo: signed('tcbInfo', tcbInfo('sgx')),
            tdx_tcbinfo: signed('tcbInfo', tcbInfo('tdx')),
            tdx_tcbinfo_early: signed('tcbInfo', tcbInfo('tdx', early)),
          },
        ],
        qeidentity: signed('enclaveIdentity', enclaveIdentity('sgx')),
        tdqeidentity: signed('enclaveIdentity', enclaveIdentity('tdx')),
        pckcacrl: { platformCrl: await list('platform'), processorCrl: await list('processor') },
        rootcacrl: await list('root'),
      },
    });
    expect(await verdicts(collateralBundle(file))).toEqual(all('ok'));
    expect(await verdicts(collateralDocument(JSON.parse(readFileSync(file, 'utf8')) as JsonObject))).toEqual(all('ok'));
    const number = async (update: 'early' | 'standard'): Promise<unknown> =>
      JSON.parse(String((await collateralBundle(file, update).tcbInfo('tdx', fmspc))?.document)).tcbInfo
        .tcbEvaluationDataNumber;
    expect([await number('early'), await number('standard')]).toEqual([18, 17]);
    expect(await collateralBundle(file).tcbInfo('tdx', '00906ED50000')).toBeUndefined();
  });

  it('may be the collateral of quotes, a file each, in a folder; what changed is read again', async () => {
    const of = (tee: 'sgx' | 'tdx', authority: 'platform' | 'processor') => quoteCollateral(intel, tee, authority);
    const tdx = await of('tdx', 'platform');
    const { tcbInfo: inner, signature } = JSON.parse(tdx['tcb_info'] ?? '') as Record<string, unknown>;
    write('bundle/tdx.json', { ...tdx, tcb_info: JSON.stringify(inner), tcb_info_signature: signature });
    const bundle = collateralBundle(join(folder, 'bundle'));
    const missing = 'EV_COLLATERAL_UNAVAILABLE';
    expect(await verdicts(bundle)).toEqual({ ...all('ok'), sgx: missing, qe: missing, processor: missing });
    write('bundle/sgx.json', await of('sgx', 'processor'));
    expect(await verdicts(bundle)).toEqual(all('ok'));
    const changed = write('bundle/tdx.json', {
      ...tdx,
      tcb_info: (tdx['tcb_info'] ?? '').replace('"UpToDate"', '"Revoked"'),
    });
    utimesSync(changed, new Date(), new Date(Date.now() + 5000));
    expect(await verdicts(bundle)).toEqual({ ...all('ok'), tdx: 'EV_SIGNATURE' });
  });

  it('that is missing or holds something else says so', async () => {
    expect(await verdicts(collateralBundle(join(folder, 'absent')))).toEqual(all('EV_COLLATERAL_UNAVAILABLE'));
    expect(await verdicts(collateralBundle(write('wrong.json', 'no JSON')))).toEqual(all('EV_COLLATERAL_UNAVAILABLE'));
    for (const content of ['[]', '1', '{"tcb_info":"no JSON"}', '{"collaterals":1}', '{"root_ca_crl":"zz"}'])
      for (const source of [collateralBundle(write('wrong.json', content)), collateralDocument(JSON.parse(content))])
        expect(await verdicts(source), `${source.name}: ${content}`).toEqual(all('EV_COLLATERAL_UNAVAILABLE'));
  });
});
