import { Command } from 'commander';
import { addClusterCommands } from './commands/cluster.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addDownCommand } from './commands/down.ts';
import { addExecCommand } from './commands/exec.ts';
import { addExplainCommand } from './commands/explain.ts';
import { addImageCommands } from './commands/image.ts';
import { addInstallCommands } from './commands/install.ts';
import { addLogsCommand } from './commands/logs.ts';
import { addPodVmCommands } from './commands/pod-vm.ts';
import { addPolicyCommands } from './commands/policy.ts';
import { addReferenceValueCommands } from './commands/reference-value.ts';
import { addReleaseCommands } from './commands/release.ts';
import { addRunCommands } from './commands/run.ts';
import { addSecretCommands } from './commands/secret.ts';
import { addStatusCommand } from './commands/status.ts';
import { addTokenKeyCommands } from './commands/token-key.ts';
import { addTransformCommand } from './commands/transform.ts';
import { addUpCommand } from './commands/up.ts';
import { addVerifyCommand } from './commands/verify.ts';
import { releaseVersion } from './release/programs.ts';

/** The `sealpod` command line: thin verbs over the parts. */
export function createProgram(): Command {
  const program = new Command('sealpod')
    .description('Kubernetes pods in confidential virtual machines; secrets only after remote attestation')
    .version(releaseVersion)
    .option('--home <directory>', 'development environment (default /var/lib/sealpod/development, or SEALPOD_HOME)')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('--kbs-url <url>', 'key broker other than that of the development environment')
    .option('--kbs-certificate <file>', 'PEM certificate to trust for --kbs-url')
    .option('--admin-key <file>', 'PEM private key (Ed25519 or P-256) of an administrator')
    .showHelpAfterError('(see --help)')
    .exitOverride();
  addUpCommand(program);
  addDownCommand(program);
  addDoctorCommand(program);
  addSecretCommands(program);
  addPolicyCommands(program);
  addReferenceValueCommands(program);
  addTokenKeyCommands(program);
  addVerifyCommand(program);
  addImageCommands(program);
  addPodVmCommands(program);
  addReleaseCommands(program);
  addRunCommands(program);
  addStatusCommand(program);
  addLogsCommand(program);
  addExecCommand(program);
  addExplainCommand(program);
  addTransformCommand(program);
  addClusterCommands(program);
  addInstallCommands(program);
  return program;
}
