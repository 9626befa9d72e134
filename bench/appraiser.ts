import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { bundleAttestationService } from '@sealpod/attestation-service/bundle';
import { parseQuote } from '@sealpod/protocol/dcap';
import { snpReportAsJson } from '@sealpod/protocol/snp';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { SoftwareTpm } from '@sealpod/protocol/tpm/testing';
import { TestAuthority } from '../attestation-service/verifiers/tpm/testing/authority.ts';
import { session, TestGuest, toEvaluate } from '../attestation-service/verifiers/tpm/testing/mint.ts';

/** An attestation service with its REST front, in processes of its own. */
export interface Appraiser {
  readonly url: string;
  /** The main process and its workers. */
  readonly pids: readonly number[];
  /** Milliseconds from the start of the program until it is ready. */
  readonly startMs: number;
  stop(): Promise<void>;
}

/** Starts one over plain HTTP on loopback, bundled as it is delivered, with `tees` as members of its configuration. */
export async function startAppraiser(folder: string, workers: number, tees: object): Promise<Appraiser> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const program = await bundleAttestationService(join(folder, 'program'));
  const configuration = join(folder, 'attestation-service.json');
  const front = { storage: 'data/db.sqlite', listen: '127.0.0.1:0', rest: { listen: '127.0.0.1:0' }, workers };
  writeFileSync(configuration, JSON.stringify({ ...front, openAdministration: true, ...tees }));
  const began = performance.now();
  const child = spawn(process.execPath, [program, '--config', configuration], { stdio: ['ignore', 'pipe', 'inherit'] });
  const { restPort } = await readyLine(child);
  const startMs = performance.now() - began;
  const pid = child.pid ?? Number.NaN;
  return {
    url: `http://127.0.0.1:${restPort}`,
    pids: [pid, ...childrenOf(pid)],
    startMs,
    stop: () =>
      new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.kill('SIGTERM');
      }),
  };
}

function readyLine(child: ChildProcess): Promise<{ readonly restPort: number }> {
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the attestation service ended with ${code}`)));
    if (child.stdout !== null)
      createInterface(child.stdout).once('line', (line) => resolve(JSON.parse(line) as { restPort: number }));
  });
}

function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').split(' ').filter(Boolean).map(Number),
  );
}

/** A published report and its certificate; undefined where the vectors are not on this machine. */
export function snpEvidence(): object | undefined {
  const [report, key] = [vectorPath('snp/test-report.bin'), vectorPath('snp/test-vcek.der')];
  if (!existsSync(report) || !existsSync(key)) return undefined;
  return {
    attestation_report: snpReportAsJson(readFileSync(report)),
    cert_chain: [{ cert_type: 'VCEK', data: [...readFileSync(key)] }],
  };
}

const recordedQuotes = fileURLToPath(
  new URL('../attestation-service/verifiers/dcap/testing/recorded/', import.meta.url),
);

/** A published quote of a TD under Intel's root, with the collateral of its day, which is past its date. */
export const tdxQuote = {
  configuration: {
    dcap: {
      sources: [{ type: 'bundle', path: join(recordedQuotes, 'tdx-quote-collateral.json') }],
      acceptExpiredCollateral: true,
    },
  },
  request: (): string => {
    const quote = readFileSync(join(recordedQuotes, 'tdx-quote.bin'));
    const evidence = Buffer.from(JSON.stringify({ quote: quote.toString('base64') })).toString('base64url');
    const { reportData } = parseQuote(quote).body.report;
    return requestBody({ tee: 'tdx', evidence, runtime_data: { raw: reportData.toString('base64url') } });
  },
};

/** A machine with a TPM of software under a root of this run, which is enrolled as if it were hardware. */
export async function tpmMachine(
  folder: string,
): Promise<{ readonly configuration: object; readonly guest: TestGuest }> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const authority = await (await TestAuthority.root('CN=Bench Root')).intermediate();
  const { privateKey: endorsementKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const guest = new TestGuest(new SoftwareTpm({ endorsementKey }), await authority.endorse(endorsementKey));
  const certificatesFile = join(folder, 'roots.pem');
  writeFileSync(certificatesFile, authority.certificates);
  return { configuration: { tpm: { roots: [{ name: 'bench', certificatesFile, simulated: false }] } }, guest };
}

/** The request of one TPM session with a service that is asked for its challenge. */
export async function tpmRequest(guest: TestGuest, url: string): Promise<string> {
  const current = session('bench');
  const challenge = async (inner: Readonly<Record<string, string>>): Promise<string> => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${url}/challenge`, { method: 'POST', headers, body: JSON.stringify(inner) });
    return answer.text();
  };
  const secret = await guest.activate({ challenge }, current.nonce);
  const { tee, evidence, runtimeData, initData } = toEvaluate(guest.evidence(current, secret), current, guest.initdata);
  return requestBody({
    tee,
    evidence: Buffer.from(JSON.stringify(evidence)).toString('base64url'),
    runtime_data: runtimeData as object,
    ...(initData !== undefined && 'toml' in initData ? { init_data: { init_data_toml: initData.toml } } : {}),
  });
}

export function snpRequest(evidence: object): string {
  return requestBody({ tee: 'snp', evidence: Buffer.from(JSON.stringify(evidence)).toString('base64url') });
}

function requestBody(request: object): string {
  return JSON.stringify({ verification_requests: [request], policy_ids: [] });
}
