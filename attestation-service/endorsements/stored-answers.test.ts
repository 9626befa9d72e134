import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openStorage, type Storage } from '@sealpod/storage';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type AskStored, storedAnswers } from './stored-answers.ts';

describe('stored answers', () => {
  const hour = 3_600_000;
  let folder: string;
  let storage: Storage;
  let later: number;
  let ask: AskStored;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'stored-answers-'));
    storage = await openStorage({ path: join(folder, 'state', 'db.sqlite') });
    later = 0;
    ask = storedAnswers(storage, 'test', () => new Date(Date.now() + later));
  });
  afterEach(async () => {
    await storage.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const answers = (text: string) => async () => Buffer.from(text);
  const unasked = async (): Promise<never> => expect.fail('the source was asked');

  it('are used for their lifetime, and across processes', async () => {
    expect(String(await ask('a', hour, answers('one')))).toBe('one');
    expect(String(await storedAnswers(storage, 'test', () => new Date())('a', hour, unasked))).toBe('one');
    later = 2 * hour;
    expect(String(await ask('a', hour, answers('two')))).toBe('two');
  });

  it('ask once for what many ask at the same time', async () => {
    let asked = 0;
    const answer = Promise.withResolvers<Buffer>();
    const source = () => {
      asked += 1;
      return answer.promise;
    };
    const all = Promise.all(Array.from({ length: 8 }, () => ask('a', hour, source)));
    answer.resolve(Buffer.from('one'));
    expect((await all).map(String)).toEqual(Array(8).fill('one'));
    expect(asked).toBe(1);
  });

  it('are used after their lifetime where the source fails; its failure is told where there are none', async () => {
    const away = async (): Promise<never> => Promise.reject(new Error('away'));
    await expect(ask('a', hour, away)).rejects.toThrow('away');
    await ask('a', hour, answers('one'));
    later = 2 * hour;
    expect(String(await ask('a', hour, away))).toBe('one');
  });

  it('are used after their lifetime where the source is silent, and replaced when it speaks at last', async () => {
    await ask('a', hour, answers('one'));
    later = 2 * hour;
    const silent = Promise.withResolvers<Buffer>();
    expect(String(await ask('a', hour, () => silent.promise))).toBe('one');
    // Nobody asks a second time while the first question is open.
    expect(String(await ask('a', hour, unasked))).toBe('one');
    silent.resolve(Buffer.from('two'));
    await expect.poll(async () => Buffer.from((await storage.get('test', 'a'))?.value ?? '').toString()).toBe('two');
    later = 0;
    expect(String(await ask('a', hour, unasked))).toBe('two');
  });

  it('do not keep what the source does not have', async () => {
    expect(await ask('a', hour, async () => undefined)).toBeUndefined();
    expect(String(await ask('a', hour, answers('one')))).toBe('one');
  });
});
