import { logLevels, runtimeSettings } from '../values/runtime.ts';
import { flag, group, integer, list, text, type ValueOf } from '../values/setting.ts';

const hostPattern = '^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?$';
const pem = (label: string): string => `^\\s*-----BEGIN ${label}-----`;
const name = text('Name of the object.', { pattern: '^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$' });

export const sealpodRuntimeSettings = runtimeSettings;

/** `spec` of a TrustService. */
export const trustServiceSettings = group(
  'A key broker with an attestation service: it releases secrets to guests that have proven what they are.',
  {
    image: text('Image of the key broker; empty: that of the controller.', { default: '' }),
    hosts: list(
      'Further names and addresses by which guests reach it.',
      text('Host or address.', { pattern: hostPattern }),
      {
        maxItems: 16,
      },
    ),
    port: integer('Port of its Service.', { default: 8080, minimum: 1, maximum: 65_535 }),
    serviceType: text('How the Service is reached from outside.', {
      default: 'ClusterIP',
      choices: ['ClusterIP', 'NodePort', 'LoadBalancer'],
    }),
    administrators: list(
      'Whose tokens are accepted. Nobody else is: the API server and its administrators are not trusted with secrets.',
      group('An administrator.', {
        name: text('What to call the key.', { pattern: '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$' }),
        publicKey: text('Public key, PEM: Ed25519 or EC P-256.', { pattern: pem('PUBLIC KEY'), maxLength: 4096 }),
        role: text('The highest role that its tokens may claim.', {
          default: 'owner',
          choices: ['owner', 'operator', 'auditor'],
        }),
      }),
      { minItems: 1, maxItems: 16, keys: ['name'] },
    ),
    referenceValues: flag(
      'Let the controller register ReferenceValues, with a key of its own and the role operator. Whoever controls the cluster can then change reference values, and secrets: keep this off where the cluster is not trusted.',
      false,
    ),
    tpmRoots: list(
      'Authorities of TPMs whose evidence is looked at.',
      group('An authority.', {
        name: text('Shown in claims.', { maxLength: 63 }),
        certificates: text('Its certificates, PEM.', { pattern: pem('CERTIFICATE'), maxLength: 65_536 }),
        simulated: flag('Its TPMs are software, as in development. No policy for production accepts them.', false),
      }),
      { maxItems: 16, keys: ['name'] },
    ),
    storage: group('Where secrets, policies and the record of decisions are kept. Encrypt the disk.', {
      size: text('Size of the volume; it can grow.', { default: '1Gi', pattern: '^[0-9]+(Mi|Gi|Ti)$' }),
      className: text('Its StorageClass; empty: the default one.', { default: '', maxLength: 253 }),
      onDelete: text('What happens to the volume when the TrustService is deleted.', {
        default: 'Retain',
        choices: ['Retain', 'Delete'],
      }),
    }),
    logLevel: text('How much it logs.', { default: 'info', choices: logLevels }),
  },
  [
    {
      rule: "self.administrators.exists(a, a.role == 'owner')",
      message: 'administrators: name at least one owner; nobody becomes owner by being first',
    },
    {
      rule: 'self.storage.className == oldSelf.storage.className',
      message: 'storage.className: the class of a volume cannot be changed',
    },
  ],
);

/** `spec` of a PodVmImage. */
export const podVmImageSettings = group(
  'An image that pod VMs boot. Nodes get it from an OCI image that holds disk.raw and manifest.json.',
  {
    digest: text('SHA-256 of disk.raw. Nodes refuse any other.', { pattern: '^sha256:[0-9a-f]{64}$' }),
    source: text('The OCI image, by digest.', { pattern: '^[^\\s@]+@sha256:[0-9a-f]{64}$', maxLength: 512 }),
    referenceValues: list(
      'What a TPM says of a machine that boots it, as `sealpod podvm measure` computes it.',
      group('A measured part.', {
        id: text('Id of the reference value, e.g. tpm_kernel.', { pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$' }),
        values: list('Accepted values, hex.', text('A value.', { pattern: '^[0-9a-f]{2,256}$' }), {
          minItems: 1,
          maxItems: 64,
        }),
      }),
      { keys: ['id'] },
    ),
  },
  [
    {
      rule: 'self.digest == oldSelf.digest && self.source == oldSelf.source',
      message: 'digest and source cannot be changed: make another PodVmImage, and choose it by its digest',
    },
  ],
);

/** `spec` of ReferenceValues. */
export const referenceValuesSettings = group(
  'What measured components must be, registered with a TrustService.',
  {
    trustService: group('The TrustService, in the same namespace.', { name }),
    podVmImages: list(
      'PodVmImages whose reference values are taken; several of one id are accepted side by side.',
      name,
      {
        maxItems: 16,
      },
    ),
    values: list(
      'Further values.',
      group('A reference value.', {
        id: text('Its id.', { pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$' }),
        values: list('Accepted values.', text('A value.', { maxLength: 512 }), { minItems: 1, maxItems: 64 }),
      }),
      { keys: ['id'] },
    ),
    expiresAt: text('RFC 3339 time after which they count no more; empty: never.', {
      default: '',
      pattern: '^(\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?Z)?$',
    }),
  },
  [
    {
      rule: 'size(self.values) + size(self.podVmImages) > 0',
      message: 'name values, or a PodVmImage that has some',
    },
    {
      rule: 'self.trustService.name == oldSelf.trustService.name',
      message: 'trustService: values cannot be moved; delete these and make others',
    },
  ],
);

export type TrustServiceSpec = ValueOf<typeof trustServiceSettings>;
export type PodVmImageSpec = ValueOf<typeof podVmImageSettings>;
export type ReferenceValuesSpec = ValueOf<typeof referenceValuesSettings>;
