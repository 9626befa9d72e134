import { parseReference } from '@sealpod/registry';
import type { Command } from 'commander';
import { readState, requireState } from '../development/state.ts';
import { encryptForKeyBroker, pushExampleImage } from '../image/environment.ts';
import { environmentReference } from '../pod/image.ts';
import { writeResult } from '../terminal/output.ts';
import { globalOptions, kbsClientFor, layoutFor } from './context.ts';
import { authFileOption, registryAccess } from './registry-options.ts';
import { resourcePath } from './secret.ts';

interface EncryptOptions {
  readonly key: string;
  readonly policy?: string;
  readonly plainHttpRegistry: readonly string[];
  readonly authFile?: string;
}

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
    .option('--plain-http-registry <host:port...>', 'registries spoken to without TLS', [])
    .option(...authFileOption)
    .addHelpText(
      'after',
      '\nExamples:\n  sealpod image encrypt plain/hello:1 sealed/hello:1 --key default/image-key/hello\n  sealpod --kbs-url https://kbs.example:8080 --admin-key owner.pem image encrypt oci:./web registry.example/web:1 --key default/image-key/web',
    )
    .action(async (source: string, destination: string, options: EncryptOptions, command: Command) => {
      // With a key broker of one's own no environment is needed.
      const state =
        globalOptions(command).kbsUrl === undefined ? requireState(layoutFor(command)) : readState(layoutFor(command));
      const plainHttp = [...options.plainHttpRegistry, ...(state?.registry === undefined ? [] : [state.registry])];
      const encrypted = await encryptForKeyBroker(
        kbsClientFor(command),
        {
          source,
          destination,
          keyPath: resourcePath(options.key),
          ...(options.policy === undefined ? {} : { policyId: options.policy }),
        },
        registryAccess(plainHttp, options.authFile),
        (text) => (state === undefined ? parseReference(text) : environmentReference(state, text)),
      );
      const row = [destination, encrypted.manifestDigest, encrypted.keyId, String(encrypted.layers.length)];
      writeResult(globalOptions(command).output, encrypted, ['image', 'digest', 'key', 'layers'], [row]);
    });

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
