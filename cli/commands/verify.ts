import type { OfflineVerification } from '@sealpod/attestation-service/offline';
import { SealpodError } from '@sealpod/protocol/errors';
import { isTee, teeNames } from '@sealpod/protocol/rcar';
import { reasonCodes } from '@sealpod/protocol/reason-codes';
import { failures, passed, type Verdict } from '@sealpod/protocol/verdict';
import type { Command } from 'commander';
import { globalOptions, readBytes, readText } from './context.ts';

/** Where evidence comes from and what it is held against. */
export interface VerifyOptions {
  readonly collateral?: string;
  readonly tee?: string;
  readonly reportData?: string;
  readonly initdata?: string;
  readonly allowSample?: boolean;
  readonly explain?: boolean;
}

/** Verifies evidence in a file with what a folder holds. @throws SealpodError USAGE, EV_FORMAT for what is no evidence */
async function verifyFile(file: string, options: VerifyOptions): Promise<OfflineVerification> {
  const { collateral, tee, reportData, initdata, allowSample = false } = options;
  if (tee !== undefined && !isTee(tee))
    throw new SealpodError('USAGE', 'there is no such TEE', { expected: teeNames.join(', '), actual: tee });
  if (reportData !== undefined && !/^([0-9a-fA-F]{2}){1,64}$/.test(reportData))
    throw new SealpodError('USAGE', 'the report data are not hexadecimal', {
      expected: '1 to 64 bytes',
      actual: reportData,
    });
  const bytes = readBytes(file);
  // The service is loaded for who needs it: every other command starts without.
  const { offlineConfiguration, readEvidenceFile, verifyInFile, withCertificates, withOfflineService } = await import(
    '@sealpod/attestation-service/offline'
  );
  const config = offlineConfiguration(collateral);
  const evidence = withCertificates(readEvidenceFile(bytes, tee), collateral);
  return withOfflineService(allowSample ? { ...config, sample: true } : config, (service) =>
    verifyInFile(service, evidence, {
      ...(reportData === undefined ? {} : { reportData: Buffer.from(reportData, 'hex') }),
      ...(initdata === undefined ? {} : { initDataToml: readText(initdata) }),
    }),
  );
}

/**
 * Evidence in a file of which every check holds.
 *
 * @throws SealpodError with the code of the first check that failed
 */
export async function verifiedFile(file: string, options: VerifyOptions): Promise<OfflineVerification> {
  const verification = await verifyFile(file, options);
  const [first] = failures(verification.verdict);
  if (first === undefined) return verification;
  const { code, check, expected, actual } = first;
  throw new SealpodError(code === 'OK' ? 'EV_REFUSED' : code, `${file} does not verify: ${check}`, {
    ...(expected === undefined ? {} : { expected }),
    ...(actual === undefined ? {} : { actual }),
    fix: `see \`sealpod verify ${file} --explain\``,
  });
}

function tree(verdict: Verdict, explain: boolean, depth = 0): string[] {
  const indent = '  '.repeat(depth);
  const { check, code, expected, actual, source, children = [] } = verdict;
  const failed = code !== 'OK';
  const lines = [`${indent}${failed ? 'NOT' : 'ok '} ${check}${failed ? `: ${code}` : ''}`];
  const tell = (name: string, text: string | undefined): void => {
    if (text !== undefined) lines.push(`${indent}      ${name.padEnd(9)} ${text}`);
  };
  if (failed && children.length === 0) {
    tell('expected', expected);
    tell('actual', actual);
    tell('source', source);
    if (explain) {
      tell('meaning', reasonCodes[code][0]);
      tell('to do', verdict.fix ?? reasonCodes[code][1]);
    }
  }
  return [...lines, ...children.flatMap((child) => tree(child, explain, depth + 1))];
}

function tellVerification({ tee, verdict, bound, submodules }: OfflineVerification, explain: boolean): string {
  const lines = [...tree(verdict, explain), '', passed(verdict) ? `${tee}: verified` : `${tee}: NOT verified`];
  if (passed(verdict) && !bound)
    lines.push('It is bound to nothing from outside: a replay does not show. Give --report-data to compare.');
  if (explain)
    for (const { teeClass, claims } of submodules)
      lines.push('', `claims (${teeClass}):`, JSON.stringify(claims, null, 2));
  return `${lines.join('\n')}\n`;
}

/** `sealpod verify`. */
export function addVerifyCommand(program: Command): void {
  program
    .command('verify')
    .description('verify evidence in a file, without network; exits 0 only where every check holds')
    .argument(
      '<file>',
      'evidence as an attester sends it, an SNP report, an SGX or TDX quote, a CCA token; - for standard input',
    )
    .option('--collateral <directory>', 'certificates, revocation lists and roots (see docs/reference/cli.md)')
    .option('--tee <name>', 'the TEE, where it does not show')
    .option('--report-data <hex>', 'what the evidence must be bound to; else only that it is bound to something')
    .option('--initdata <file>', 'the initdata that the guest says it was started with')
    .option('--allow-sample', 'verify sample evidence too, which proves nothing')
    .option('--explain', 'what each failed check means and what to do, and the claims')
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod verify evidence.json --collateral ./collateral\n  sealpod verify quote.bin --tee tdx --explain\n  sealpod -o json verify report.bin --report-data 00…ff',
    )
    .action(async (file: string, options: VerifyOptions, command: Command) => {
      const { output } = globalOptions(command);
      const verification = await verifyFile(file, options);
      const verified = passed(verification.verdict);
      process.stdout.write(
        output === 'json'
          ? `${JSON.stringify({ verified, ...verification }, null, 2)}\n`
          : tellVerification(verification, options.explain === true),
      );
      if (!verified) process.exitCode = 1;
    });
}
