import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkLogChain, jsonOf, openStorage, type Storage, textOf } from './index.ts';

let directory: string;
let storage: Storage;
let clock: number;

beforeEach(async () => {
  directory = join(mkdtempSync(join(tmpdir(), 'sealpod-storage-')), 'data');
  clock = 1_000_000;
  storage = await openStorage({ path: join(directory, 'a.db'), now: () => clock });
});

afterEach(async () => {
  await storage.close();
  rmSync(join(directory, '..'), { recursive: true });
});

describe('entries', () => {
  it('counts versions and refuses a write that expected another', async () => {
    expect(await storage.put('n', 'k', 'one')).toBe(1);
    expect(await storage.put('n', 'k', 'two', { expectedVersion: 1 })).toBe(2);
    await expect(storage.put('n', 'k', 'three', { expectedVersion: 1 })).rejects.toMatchObject({
      code: 'STORAGE_CONFLICT',
      detail: { expected: 'version 1', actual: 'version 2' },
    });
    await expect(storage.delete('n', 'k', { expectedVersion: 1 })).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' });
    const entry = await storage.get('n', 'k');
    expect(entry === undefined ? '' : textOf(entry)).toBe('two');
    expect(entry).toMatchObject({ version: 2, updatedAt: 1_000_000 });
  });

  it('keeps namespaces apart and bytes as they are', async () => {
    const bytes = Uint8Array.from([0, 255, 254, 10]);
    await storage.put('a', 'k', bytes);
    expect(await storage.get('b', 'k')).toBeUndefined();
    const entry = await storage.get('a', 'k');
    expect(new Uint8Array(entry?.value ?? [])).toEqual(bytes);
    expect(() => (entry === undefined ? '' : textOf(entry))).toThrow('not text');
    expect(() => (entry === undefined ? '' : jsonOf(entry))).toThrow('not JSON');
  });

  it('lists by prefix in the order of bytes, page by page', async () => {
    for (const key of ['b/2', 'b/1', 'a', 'b/\u{1F600}', 'c', 'b']) await storage.put('n', key, '{}');
    const keys = async (options: object) => (await storage.list('n', options)).map((entry) => entry.key);
    expect(await keys({ prefix: 'b/' })).toEqual(['b/1', 'b/2', 'b/\u{1F600}']);
    expect(await keys({ after: 'b', limit: 2 })).toEqual(['b/1', 'b/2']);
  });

  it('does not show what has expired, lets it be created anew, and sweeps it', async () => {
    await storage.put('n', 'k', 'v', { expiresAt: clock + 10 });
    await storage.put('n', 'other', 'v', { expiresAt: clock + 10 });
    await storage.put('n', 'kept', 'v');
    clock += 10;
    expect(await storage.get('n', 'k')).toBeUndefined();
    expect((await storage.list('n')).map((entry) => entry.key)).toEqual(['kept']);
    expect(await storage.delete('n', 'k')).toBe(false);
    expect(await storage.put('n', 'other', 'again', { expectedVersion: 0 })).toBe(1);
    await storage.put('n', 'third', 'v', { expiresAt: clock });
    expect(await storage.sweep()).toBe(1);
    expect((await storage.get('n', 'other'))?.expiresAt).toBeUndefined();
  });

  it.each([[''], ['a\0b'], ['x'.repeat(1025)]])('refuses the key %j', async (key) => {
    await expect(storage.put('n', key, 'v')).rejects.toMatchObject({ code: 'STORAGE' });
  });
});

describe('transactions', () => {
  it('writes all or nothing', async () => {
    const failing = storage.transaction(async (transaction) => {
      await transaction.put('n', 'k', 'v');
      await transaction.append('s', 'record');
      throw new Error('changed my mind');
    });
    await expect(failing).rejects.toThrow('changed my mind');
    expect(await storage.get('n', 'k')).toBeUndefined();
    expect(await storage.read('s')).toEqual([]);
  });

  it('undoes one of a batch without touching the others', async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 100 }, (_, index) =>
        storage.transaction(async (transaction) => {
          await transaction.put('n', String(index), 'v');
          await transaction.append('s', String(index));
          if (index % 3 === 0) throw new Error('no');
          return index;
        }),
      ),
    );
    const kept = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    expect(kept).toEqual(Array.from({ length: 100 }, (_, index) => index).filter((index) => index % 3 !== 0));
    expect((await storage.list('n')).length).toBe(kept.length);
    expect((await storage.read('s')).map((record) => Number(record.value))).toEqual(kept);
    expect((await checkLogChain(storage, 's')).brokenAt).toBeUndefined();
  });

  it('does not show uncommitted writes to readers', async () => {
    await storage.transaction(async (transaction) => {
      await transaction.put('n', 'k', 'v');
      expect(await storage.get('n', 'k')).toBeUndefined();
      expect(await transaction.get('n', 'k')).toBeDefined();
    });
    expect(await storage.get('n', 'k')).toBeDefined();
  });

  it('rolls back one that hangs and takes no late writes from it', async () => {
    await storage.close();
    storage = await openStorage({ path: join(directory, 'a.db'), transactionTimeoutMs: 20 });
    const gate = Promise.withResolvers<void>();
    const late = Promise.withResolvers<unknown>();
    const hanging = storage.transaction(async (transaction) => {
      await transaction.put('n', 'before', 'v');
      await gate.promise;
      await transaction.put('n', 'after', 'v').then(late.resolve, late.resolve);
    });
    await expect(hanging).rejects.toThrow('took longer than 20 ms');
    gate.resolve();
    expect(await late.promise).toMatchObject({ message: 'the transaction is over' });
    expect(await storage.list('n')).toEqual([]);
  });

  it('refuses writes that do not fit, keeps what was there, and goes on', async () => {
    await storage.close();
    storage = await openStorage({ path: join(directory, 'small.db'), maximumBytes: 128 * 1024 });
    await storage.put('n', 'k', 'kept');
    await expect(storage.put('n', 'big', 'x'.repeat(256 * 1024))).rejects.toMatchObject({ code: 'STORAGE' });
    expect(await storage.get('n', 'big')).toBeUndefined();
    expect(await storage.put('n', 'k', 'still works')).toBe(2);
  });

  it('is refused after close', async () => {
    await storage.close();
    await expect(storage.get('n', 'k')).rejects.toThrow('closed');
    await expect(storage.put('n', 'k', 'v')).rejects.toThrow('closed');
  });
});

describe('log', () => {
  it('finds records by key, from either end', async () => {
    for (const [key, value] of [
      ['a', '1'],
      ['b', '2'],
      ['a', '3'],
    ] as const)
      await storage.append('s', value, { key });
    await storage.append('t', 'other stream');
    expect((await storage.read('s', { key: 'a' })).map((record) => record.value)).toEqual(['1', '3']);
    expect((await storage.read('s', { newestFirst: true, limit: 2 })).map((record) => record.value)).toEqual([
      '3',
      '2',
    ]);
    expect((await storage.read('s', { after: 2 })).map((record) => record.sequence)).toEqual([3]);
  });

  it('cannot be changed through SQL, and shows it where the triggers were removed', async () => {
    for (const value of ['1', '2', '3']) await storage.append('s', value);
    const before = await checkLogChain(storage, 's');
    expect(before).toMatchObject({ records: 3 });
    const other = new DatabaseSync(join(directory, 'a.db'));
    expect(() => other.exec(`UPDATE log SET value = 'x' WHERE sequence = 2`)).toThrow('append-only');
    expect(() => other.exec('DELETE FROM log')).toThrow('append-only');
    other.exec(`DROP TRIGGER log_is_not_updated; UPDATE log SET value = 'x' WHERE sequence = 2`);
    other.close();
    expect(await checkLogChain(storage, 's')).toMatchObject({ records: 1, brokenAt: 2 });
  });
});

describe('file', () => {
  it('is private, and a directory that is not is refused', async () => {
    await storage.put('n', 'k', 'v');
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    for (const suffix of ['', '-wal', '-shm']) {
      expect(statSync(join(directory, `a.db${suffix}`)).mode & 0o777).toBe(0o600);
    }
    chmodSync(directory, 0o755);
    await expect(openStorage({ path: join(directory, 'b.db') })).rejects.toMatchObject({
      code: 'STORAGE',
      detail: { expected: '0700', actual: '0755', fix: `chmod 700 ${directory}` },
    });
    chmodSync(directory, 0o700);
  });

  it('keeps everything over close and open', async () => {
    await storage.put('n', 'k', 'v');
    await storage.append('s', 'r');
    await storage.close();
    storage = await openStorage({ path: join(directory, 'a.db') });
    expect((await storage.get('n', 'k'))?.version).toBe(1);
    expect((await storage.read('s')).length).toBe(1);
  });

  it('is refused when written by a newer release, or no database at all', async () => {
    await storage.close();
    const other = new DatabaseSync(join(directory, 'a.db'));
    other.exec('PRAGMA user_version = 99');
    other.close();
    await expect(openStorage({ path: join(directory, 'a.db') })).rejects.toMatchObject({
      message: 'the database was written by a newer release',
      detail: { actual: 'schema version 99' },
    });
    await expect(openStorage({ path: directory })).rejects.toMatchObject({ code: 'STORAGE' });
    storage = await openStorage({ path: join(directory, 'b.db') });
  });
});

describe('two processes on one file', () => {
  it('G-13: spend each nonce exactly once', async () => {
    const program = fileURLToPath(new URL('./testing/spender.ts', import.meta.url));
    const path = join(directory, 'shared.db');
    const spend = () => promisify(execFile)(process.execPath, [program, path, '200'], { timeout: 25_000 });
    const results = await Promise.all([spend(), spend(), spend()]);
    const won = results.flatMap(({ stdout }) => JSON.parse(stdout) as number[]);
    expect(won.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, index) => index));
    const shared = await openStorage({ path });
    expect((await shared.read('spending')).length).toBe(200);
    expect(await checkLogChain(shared, 'spending')).toMatchObject({ records: 200 });
    await shared.close();
  });

  it('a writer waits for another one, and says so when it waited too long', async () => {
    const path = join(directory, 'busy.db');
    const impatient = await openStorage({ path, busyTimeoutMs: 30 });
    const other = new DatabaseSync(path);
    other.exec('BEGIN IMMEDIATE');
    await expect(impatient.put('n', 'k', 'v')).rejects.toMatchObject({
      code: 'STORAGE',
      message: 'database is locked',
    });
    other.exec('ROLLBACK');
    other.close();
    expect(await impatient.put('n', 'k', 'v')).toBe(1);
    await impatient.close();
  });
});
