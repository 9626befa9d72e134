import { spawn } from 'node:child_process';
import { SealpodError } from '@sealpod/protocol/errors';

const minimumGo = [1, 26] as const;

/** The version of the Go in PATH. @throws SealpodError PREREQUISITE where it is missing, or older than 1.26 */
export async function requireGo(directory: string): Promise<string> {
  const text = await go(directory, ['env', 'GOVERSION'], () => undefined).catch(() => 'no go program');
  const [major = 0, minor = 0] = (/^go(\d+)\.(\d+)/.exec(text)?.slice(1) ?? []).map(Number);
  if (major > minimumGo[0] || (major === minimumGo[0] && minor >= minimumGo[1])) return text.trim();
  throw new SealpodError('PREREQUISITE', 'the development cluster is built with Go', {
    expected: `Go ${minimumGo.join('.')} or newer in PATH`,
    actual: text.trim(),
    fix: 'install a current Go and run this again',
  });
}

/**
 * Runs `go` in a module's folder, so that its result is the same on every machine; returns what it printed.
 *
 * @param log told each line of standard error
 * @throws SealpodError INTERNAL with the last lines
 */
export function go(directory: string, args: readonly string[], log: (line: string) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('go', args, {
      cwd: directory,
      env: { ...process.env, GOTOOLCHAIN: 'local', CGO_ENABLED: '0', GOFLAGS: '-modcacherw -trimpath -buildvcs=false' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let lastLines = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      lastLines = (lastLines + chunk).slice(-4000);
      for (const line of chunk.toString().split('\n').filter(Boolean)) log(line);
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      if (code === 0) resolve(output);
      else
        reject(new SealpodError('INTERNAL', `go ${args[0] ?? ''} failed with ${code}`, { actual: lastLines.trim() }));
    });
  });
}
