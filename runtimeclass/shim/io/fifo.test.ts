import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { openInput, openOutput, streamPath } from './fifo.ts';

const directory = mkdtempSync(join(tmpdir(), 'sealpod-fifo-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function fifo(name: string): string {
  const path = join(directory, name);
  execFileSync('mkfifo', [path]);
  return path;
}

test('20 MB reach a slow reader whole, and closing ends its stream', async () => {
  const path = fifo('large');
  const sink = openOutput(path);
  const reader = spawn('sh', ['-c', 'sleep 0.2; sha256sum'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const source = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
  source.stdout.pipe(reader.stdin);
  const hash = createHash('sha256');
  // The reader must have opened the FIFO before we close, or what we wrote is lost with the last descriptor.
  for (let i = 0; i < 20; i++) {
    const chunk = Buffer.alloc(1_000_000, i);
    hash.update(chunk);
    await sink.write(chunk);
  }
  await sink.close();
  const [output] = (await once(reader.stdout, 'data')) as [Buffer];
  expect(output.toString().slice(0, 64)).toBe(hash.digest('hex'));
});

test('writing without a reader waits instead of failing, and destroy releases the writer', async () => {
  const sink = openOutput(fifo('lonely'));
  const write = sink.write(Buffer.alloc(1_000_000));
  sink.destroy();
  await expect(write).rejects.toThrow(/closed|ECANCELED/);
});

test('input ends only after CloseIO and the end of every other writer', async () => {
  const path = fifo('input');
  const source = openInput(path);
  const received: Buffer[] = [];
  const finished = (async () => {
    for await (const chunk of source.data) received.push(Buffer.from(chunk));
  })();
  execFileSync('sh', ['-c', `printf one > ${path}`]);
  execFileSync('sh', ['-c', `printf two > ${path}`]);
  const late = spawn('sh', ['-c', `exec 3>${path}; read x; printf three >&3`], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  await expect.poll(() => Buffer.concat(received).toString()).toBe('onetwo');
  source.closeWriter();
  late.stdin.end('\n');
  await finished;
  expect(Buffer.concat(received).toString()).toBe('onetwothree');
});

test('file:// appends, unknown schemes are refused', async () => {
  const path = join(directory, 'sub', 'log');
  const sink = openOutput(`file://${path}`);
  await sink.write(Buffer.from('hello'));
  await sink.close();
  expect(readFileSync(path, 'utf8')).toBe('hello');
  expect(() => streamPath('binary:///usr/bin/logger?id=1')).toThrow(/binary/);
  expect(streamPath('fifo:///a/b')).toEqual({ path: '/a/b', file: false });
});
