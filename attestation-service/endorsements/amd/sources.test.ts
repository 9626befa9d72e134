import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cachedSource } from './cached-source.ts';
import { keyDistributionService } from './key-distribution-service.ts';
import { offlineStore } from './offline-store.ts';
import type { AmdEndorsementSource } from './source.ts';

const chipId = Buffer.from('11'.repeat(8) + '22'.repeat(56), 'hex');
const milan = { generation: 'Milan', chipId, tcb: { bootloader: 3, tee: 0, snp: 8, microcode: 115 } } as const;
const turin = { generation: 'Turin', chipId, tcb: { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 5 } } as const;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'amd-sources-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('the offline store', () => {
  const put = (path: string, content: string): void => {
    mkdirSync(join(folder, path, '..'), { recursive: true });
    writeFileSync(join(folder, path), content);
  };

  it('finds the certificate of chip and TCB, else that of the chip, and lists', async () => {
    const store = offlineStore(folder);
    const chip = chipId.toString('hex');
    expect(await store.chipKey(milan)).toBeUndefined();
    put(`vcek/${chip}/vcek.der`, 'any');
    expect(String(await store.chipKey(milan))).toBe('any');
    put(`vcek/${chip}/bl03_tee00_snp08_ucode115_vcek.der`, 'exact');
    expect(String(await store.chipKey(milan))).toBe('exact');
    put(`vcek/${chip}/bl02_tee03_snp04_ucode05_fmc01_vcek.der`, 'turin');
    expect(String(await store.chipKey(turin))).toBe('turin');
    expect(await store.revocationList('Genoa')).toBeUndefined();
    put('crl/Genoa.crl', 'list');
    expect(String(await store.revocationList('Genoa'))).toBe('list');
  });

  it('says when a file cannot be read', async () => {
    mkdirSync(join(folder, 'crl', 'Milan.crl'), { recursive: true });
    await expect(offlineStore(folder).revocationList('Milan')).rejects.toMatchObject({
      code: 'EV_COLLATERAL_UNAVAILABLE',
    });
  });
});

describe('the key distribution service', () => {
  let server: Server;
  let answers: ((response: ServerResponse) => void)[];
  let asked: string[];
  let url: string;
  const quick = { pauseMs: 1, longestPauseMs: 5, retries: 2, timeoutMs: 500, maxBytes: 1000 };

  beforeEach(async () => {
    answers = [];
    asked = [];
    server = createServer((request: IncomingMessage, response) => {
      asked.push(request.url ?? '');
      (answers.shift() ?? ((open) => open.writeHead(500).end()))(response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });
  const ok = (response: ServerResponse): void => void response.writeHead(200).end('bytes');
  const status =
    (code: number, headers = {}) =>
    (response: ServerResponse): void =>
      void response.writeHead(code, headers).end();

  it('is asked as AMD specifies it', async () => {
    const service = keyDistributionService(url, quick);
    answers = [ok, ok, ok];
    expect(String(await service.chipKey(milan))).toBe('bytes');
    await service.chipKey(turin);
    await service.revocationList('Turin');
    expect(asked).toEqual([
      `/vcek/v1/Milan/${chipId.toString('hex')}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115`,
      '/vcek/v1/Turin/1111111111111111?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=05',
      '/vcek/v1/Turin/crl',
    ]);
  });

  it('is asked again where it is overloaded, away or silent, and not for ever', async () => {
    const service = keyDistributionService(url, quick);
    answers = [status(429, { 'retry-after': '0' }), status(503), ok];
    expect(String(await service.chipKey(milan))).toBe('bytes');
    answers = [status(429), status(429), status(429), ok];
    await expect(service.chipKey(milan)).rejects.toMatchObject({
      code: 'EV_COLLATERAL_UNAVAILABLE',
      detail: { actual: 'status 429' },
    });
    answers = [(response) => response.destroy(), () => undefined, ok];
    expect(String(await service.chipKey(milan))).toBe('bytes');
  });

  it('may say that it has no such certificate; it may not redirect, nor send without end', async () => {
    const service = keyDistributionService(url, quick);
    answers = [status(404)];
    expect(await service.chipKey(milan)).toBeUndefined();
    answers = Array(3).fill(status(302, { location: `${url}elsewhere` }));
    await expect(service.chipKey(milan)).rejects.toMatchObject({ code: 'EV_COLLATERAL_UNAVAILABLE' });
    answers = Array(3).fill((response: ServerResponse) => void response.writeHead(200).end(Buffer.alloc(1001)));
    await expect(service.chipKey(milan)).rejects.toMatchObject({ code: 'EV_COLLATERAL_UNAVAILABLE' });
    expect(asked).not.toContain('/elsewhere');
  });
});

describe('what was answered is kept', () => {
  let storage: Storage;
  beforeEach(async () => {
    storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
  });
  afterEach(() => storage.close());

  it('over restarts, for as long as it may be; one asks for all; what is old is used where the source is away', async () => {
    let calls = 0;
    let away = false;
    let now = Date.now();
    const source: AmdEndorsementSource = {
      name: 'test',
      chipKey: async () => {
        calls += 1;
        if (away) throw new Error('away');
        return Buffer.from(`answer ${calls}`);
      },
      revocationList: async () => undefined,
    };
    const open = () => cachedSource(source, storage, () => new Date(now));
    const first = open();
    const many = await Promise.all(Array.from({ length: 5 }, () => first.chipKey(milan)));
    expect(many.map(String)).toEqual(Array(5).fill('answer 1'));
    expect(String(await open().chipKey(milan))).toBe('answer 1');
    expect(String(await open().chipKey(turin))).toBe('answer 2');
    away = true;
    expect(String(await open().chipKey(milan))).toBe('answer 1');
    await expect(open().chipKey({ ...milan, chipId: Buffer.alloc(64, 9) })).rejects.toThrow('away');
    now += 31 * 86_400_000;
    expect(String(await open().chipKey(milan))).toBe('answer 1');
    away = false;
    expect(String(await open().chipKey(milan))).toBe('answer 5');
    expect(await open().revocationList('Milan')).toBeUndefined();
  });
});
