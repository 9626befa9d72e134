import { readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Provider, ProviderContext, ProviderFactory } from '../providers/provider.ts';
import type { AdaptorConfig } from './config.ts';

/** The providers by their names in the configuration. Each is loaded only where it is used. */
const factories: Record<string, ProviderFactory> = {
  qemu: createQemu,
  /** A provider from elsewhere: `path` names a module that exports `createProvider`. */
  module: async (options, context) => {
    const { path, ...rest } = options as Record<string, unknown>;
    if (typeof path !== 'string' || !isAbsolute(path))
      throw new SealpodError('USAGE', '"provider.path" must be an absolute path');
    const { createProvider } = (await import(pathToFileURL(path).href)) as { createProvider?: ProviderFactory };
    if (!createProvider) throw new SealpodError('USAGE', `${path} does not export createProvider`);
    return createProvider(rest, context);
  },
};

/** Makes the configured provider. Throws USAGE or PREREQUISITE. */
export async function loadProvider(
  { name, ...options }: AdaptorConfig['provider'],
  context: ProviderContext,
): Promise<Provider> {
  const factory = Object.hasOwn(factories, name) ? factories[name] : undefined;
  if (!factory) {
    throw new SealpodError('USAGE', `unknown provider "${name}"`, {
      expected: Object.keys(factories).join(', '),
      actual: name,
    });
  }
  return factory(options, context);
}

/**
 * Local virtual machines. Options: `imagesDirectory` (one folder of `podvm build` a name), `defaultImage` (a name
 * in it, `default` where absent) and `tpmAuthorityDirectory`;
 * `accelerator` (`kvm` or `tcg`), `firmware` and the programs in `programsDirectory` are found where they are not given;
 * `owner` `{uid, gid}` is the unprivileged user of the machines; `agentTransport` (`tls` where absent, or `plain`) says how
 * their agents are spoken to; `template` (`false` where absent) lets images with `sealpod.template=1` on their command line
 * start as clones of a machine that was booted once, for development only.
 */
async function createQemu(
  options: unknown,
  { podsDirectory, stateDirectory, log }: ProviderContext,
): Promise<Provider> {
  const given = options as Record<string, unknown>;
  const known = [
    ...['imagesDirectory', 'defaultImage', 'tpmAuthorityDirectory', 'accelerator', 'firmware', 'owner'],
    ...['agentTransport', 'programsDirectory', 'template'],
  ];
  for (const name of Object.keys(given)) {
    if (!known.includes(name)) throw new SealpodError('USAGE', `unknown member "provider.${name}"`);
  }
  const path = (name: string): string => {
    const value = given[name];
    if (typeof value === 'string' && isAbsolute(value)) return value;
    throw new SealpodError('USAGE', `"provider.${name}" must be an absolute path`);
  };
  const { accelerator, agentTransport, template } = given;
  if (template !== undefined && typeof template !== 'boolean') {
    throw new SealpodError('USAGE', '"provider.template" must be true or false');
  }
  if (agentTransport !== undefined && agentTransport !== 'tls' && agentTransport !== 'plain') {
    throw new SealpodError('USAGE', '"provider.agentTransport" must be tls or plain');
  }
  if (accelerator !== undefined && accelerator !== 'kvm' && accelerator !== 'tcg') {
    throw new SealpodError('USAGE', '"provider.accelerator" must be kvm or tcg');
  }
  const { createQemuProvider, defaultOwner } = await import('../providers/qemu/index.ts');
  const { createTpmAuthority } = await import('../pod-vm/tpm-authority.ts');
  const owner = given['owner'] === undefined ? defaultOwner : parseOwner(given['owner']);
  const programsDirectory = given['programsDirectory'] === undefined ? undefined : path('programsDirectory');
  const tpmAuthority = await createTpmAuthority(path('tpmAuthorityDirectory'), programsDirectory);
  const provider = createQemuProvider({
    imagesDirectory: path('imagesDirectory'),
    defaultImage: given['defaultImage'] === undefined ? 'default' : imageName(given['defaultImage']),
    tpmAuthority,
    sandboxesDirectory: podsDirectory,
    owner,
    ...(given['firmware'] === undefined ? {} : { firmware: path('firmware') }),
    ...(programsDirectory === undefined ? {} : { programsDirectory }),
    ...(accelerator === undefined ? {} : { accelerator }),
    ...(agentTransport === undefined ? {} : { agentTransport }),
    ...(template === true ? { templatesDirectory: join(stateDirectory, 'templates') } : {}),
  });
  return {
    ...provider,
    tapOwner: owner.uid,
    tpmAuthority: async () => {
      const { root, issuer } = tpmAuthority.certificates();
      return (await Promise.all([root, issuer].map((file) => readFile(file, 'utf8')))).join('');
    },
    createInstance: async (request) => {
      const instance = await provider.createInstance(request);
      // A TPM takes a second to make; the next pod need not wait for it.
      void tpmAuthority
        .prepare()
        .catch((cause: unknown) => log('warn', 'no TPM could be made in advance', { cause: String(cause) }));
      return instance;
    },
  };
}

function imageName(value: unknown): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new SealpodError('USAGE', '"provider.defaultImage" must be a name');
}

function parseOwner(value: unknown): { uid: number; gid: number } {
  const { uid, gid } = (value ?? {}) as Record<string, unknown>;
  if (Number.isSafeInteger(uid) && Number.isSafeInteger(gid)) return { uid: Number(uid), gid: Number(gid) };
  throw new SealpodError('USAGE', '"provider.owner" must be {"uid": number, "gid": number}');
}
