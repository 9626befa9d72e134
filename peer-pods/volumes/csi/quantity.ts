import { SealpodError } from '@sealpod/protocol/errors';

const binary = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi'];
const decimal = ['k', 'M', 'G', 'T', 'P'];
const blockBytes = 4096;
/** Room for a LUKS header and a file system. */
const leastBytes = 16 << 20;

/**
 * Bytes of a Kubernetes quantity of storage, in whole blocks.
 *
 * @throws SealpodError REQUEST_FORMAT for what is none, or less than a volume needs
 */
export function parseBytes(text: string): number {
  const [, digits = '', suffix = ''] = /^([0-9]+(?:\.[0-9]+)?)(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$/.exec(text) ?? [];
  const power =
    suffix === ''
      ? 1
      : binary.includes(suffix)
        ? 1024 ** (binary.indexOf(suffix) + 1)
        : 1000 ** (decimal.indexOf(suffix) + 1);
  const bytes = digits === '' ? Number.NaN : Math.ceil((Number(digits) * power) / blockBytes) * blockBytes;
  if (bytes >= leastBytes && Number.isSafeInteger(bytes)) return bytes;
  throw new SealpodError('REQUEST_FORMAT', 'not the size of a volume', {
    expected: 'a quantity of at least 16Mi',
    actual: text.slice(0, 50),
  });
}
