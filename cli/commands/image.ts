import type { Command } from 'commander';
import { requireState } from '../development/state.ts';
import { encryptIntoEnvironment, pushExampleImage } from '../image/environment.ts';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, layoutFor } from './context.ts';
import { resourcePath } from './secret.ts';

/** `sealpod image encrypt|demo`. */
export function addImageCommands(program: Command): void {
  const image = program.command('image').description('container images that only an attested guest can read');

  image
    .command('encrypt')
    .description('encrypt the layers of an image, push it, and store the new key in the key broker, bound to a policy')
    .argument('<source>', 'image reference, oci:DIRECTORY[:TAG] or oci-archive:FILE[:TAG]')
    .argument('<destination>', 'image reference with a tag')
    .requiredOption('--key <path>', 'repository/type/tag for the key in the key broker')
    .option('--policy <id>', 'resource policy that guards the key; without one the policy resource-policy decides')
    .addHelpText(
      'after',
      '\nExample:\n  sealpod image encrypt plain/hello:1 sealed/hello:1 --key default/image-key/hello',
    )
    .action(
      async (source: string, destination: string, options: { key: string; policy?: string }, command: Command) => {
        const encrypted = await encryptIntoEnvironment(requireState(layoutFor(command)), kbsClientFor(command), {
          source,
          destination,
          keyPath: resourcePath(options.key),
          ...(options.policy === undefined ? {} : { policyId: options.policy }),
        });
        const row = [destination, encrypted.manifestDigest, encrypted.keyId, String(encrypted.layers.length)];
        writeResult(globalOptions(command).output, encrypted, ['image', 'digest', 'key', 'layers'], [row]);
      },
    );

  image
    .command('demo')
    .description('build a small example image and push it into the registry of the environment')
    .argument('<destination>')
    .option('--message <text>', 'what its container prints', 'hello from inside')
    .addHelpText('after', '\nExample:\n  sealpod image demo plain/hello:1')
    .action(async (destination: string, options: { message: string }, command: Command) => {
      const digest = await pushExampleImage(requireState(layoutFor(command)), destination, options.message);
      writeResult(
        globalOptions(command).output,
        { image: destination, digest },
        ['image', 'digest'],
        [[destination, digest]],
      );
    });
}
