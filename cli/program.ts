import { Command } from 'commander';
import { addDoctorCommand } from './commands/doctor.ts';
import { addExplainCommand } from './commands/explain.ts';
import { addPolicyCommands } from './commands/policy.ts';
import { addReferenceValueCommands } from './commands/reference-value.ts';
import { addSecretCommands } from './commands/secret.ts';

/** The `sealpod` command line: thin verbs over the parts. */
export function createProgram(): Command {
  const program = new Command('sealpod')
    .description('Kubernetes pods in confidential virtual machines; secrets only after remote attestation')
    .version('0.1.0')
    .option('--home <directory>', 'development environment (default /var/lib/sealpod/development, or SEALPOD_HOME)')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('--kbs-url <url>', 'key broker other than that of the development environment')
    .option('--kbs-certificate <file>', 'PEM certificate to trust for --kbs-url')
    .option('--admin-key <file>', 'PEM private key (Ed25519 or P-256) of an administrator')
    .showHelpAfterError('(see --help)')
    .exitOverride();
  addDoctorCommand(program);
  addSecretCommands(program);
  addPolicyCommands(program);
  addReferenceValueCommands(program);
  addExplainCommand(program);
  return program;
}
