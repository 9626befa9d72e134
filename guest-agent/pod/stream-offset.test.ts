import { describe, expect, it } from 'vitest';
import { InputStream } from './input-stream.ts';
import { OutputBuffer } from './output-buffer.ts';

const { signal } = new AbortController();
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

describe('output that is read again', () => {
  it('is the last answer, from where the reader is, and nothing older', async () => {
    const output = new OutputBuffer();
    output.push(Buffer.from('abcdef'));
    expect(text(await output.read(3, signal, 0))).toBe('abc');
    expect(text(await output.read(3, signal, 0))).toBe('abc');
    expect(text(await output.read(3, signal, 2))).toBe('c');
    expect(text(await output.read(9, signal, 3))).toBe('def');
    await expect(output.read(9, signal, 1)).rejects.toMatchObject({ status: 11 });
    await expect(output.read(9, signal, 7)).rejects.toMatchObject({ status: 11 });
    output.end();
    expect(text(await output.read(9, signal, 3))).toBe('def');
    expect(text(await output.read(9, signal, 6))).toBe('');
    expect(text(await output.read(9, signal, 6))).toBe('');
    expect(text(await output.read(9, signal))).toBe('');
  });

  it('reaches a reader whose earlier call still waits on a lost connection', async () => {
    const output = new OutputBuffer();
    const [lost, repeated] = [output.read(9, signal, 0), output.read(9, signal, 0)];
    output.push(Buffer.from('data'));
    expect([text(await lost), text(await repeated)]).toEqual(['data', 'data']);
  });

  it('is not repeated to a reader that does not count', async () => {
    const output = new OutputBuffer();
    output.push(Buffer.from('ab'));
    expect(text(await output.read(1, signal))).toBe('a');
    expect(text(await output.read(1, signal))).toBe('b');
  });
});

describe('input that is written again', () => {
  it('reaches the process once, and is answered when it has taken it', async () => {
    const taken: string[] = [];
    const gates: (() => void)[] = [];
    const input = new InputStream((data) => {
      taken.push(text(data));
      return new Promise((resolve) => gates.push(resolve));
    });
    const first = input.write(Buffer.from('abc'), 0);
    let answered = false;
    const again = input.write(Buffer.from('abc'), 0).then(() => {
      answered = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(answered).toBe(false);
    gates[0]?.();
    await Promise.all([first, again]);
    // Cut into other pieces than before.
    const longer = input.write(Buffer.from('abcde'), 0);
    gates[1]?.();
    await longer;
    const uncounted = input.write(Buffer.from('f'));
    gates[2]?.();
    await uncounted;
    expect(taken).toEqual(['abc', 'de', 'f']);
    await expect(input.write(Buffer.from('x'), 9)).rejects.toMatchObject({ status: 11 });
  });

  it('fails again where it failed', async () => {
    const input = new InputStream(() => Promise.reject(new Error('closed')));
    await expect(input.write(Buffer.from('a'), 0)).rejects.toThrow('closed');
    await expect(input.write(Buffer.from('a'), 0)).rejects.toThrow('closed');
  });
});
