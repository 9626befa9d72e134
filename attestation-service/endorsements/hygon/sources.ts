import { join } from 'node:path';
import type { Storage } from '@sealpod/storage';
import { type CollateralHttpOptions, getCollateral } from '../http-client.ts';
import { readOptionalFile } from '../optional-file.ts';
import { storedAnswers } from '../stored-answers.ts';

/**
 * A place that has the certificates of chips and of the keys that signed them, both in one answer. Answers are bytes that
 * nobody has verified; undefined where the place does not have them.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where the place cannot be asked
 */
export interface HygonEndorsementSource {
  /** For explanations. */
  readonly name: string;
  /** @param serialNumber letters, digits, `-` and `_` */
  chipChain(serialNumber: string): Promise<Buffer | undefined>;
}

const defaultUrl = 'https://cert.hygon.cn';
const maxBytes = 64 * 1024;
const lifetimeMs = 30 * 86_400_000;

/** Hygon's certificate service, or a mirror of it. */
export function hygonService(url = defaultUrl, options: CollateralHttpOptions = {}): HygonEndorsementSource {
  const base = url.replace(/\/+$/, '');
  return {
    name: `certificate service ${base}`,
    chipChain: async (serialNumber) =>
      (await getCollateral(`${base}/hsk_cek?snumber=${serialNumber}`, { maxBytes, ...options }))?.body,
  };
}

/**
 * Certificates in a folder, named as upstream names them: `hsk_cek/<serial number>/hsk_cek.cert` for processors (trustee:
 * csv), `<serial number>_hsk_cek.cert` for accelerators (csv-rs).
 */
export function hygonFolder(folder: string): HygonEndorsementSource {
  return {
    name: `folder ${folder}`,
    async chipChain(serialNumber) {
      for (const path of [`hsk_cek/${serialNumber}/hsk_cek.cert`, `${serialNumber}_hsk_cek.cert`]) {
        const found = await readOptionalFile(join(folder, path), maxBytes);
        if (found !== undefined) return found;
      }
      return undefined;
    },
  };
}

/** Keeps what a source answered in storage. The certificate of a chip does not change. */
export function cachedHygonSource(
  source: HygonEndorsementSource,
  storage: Storage,
  now: () => Date,
): HygonEndorsementSource {
  const ask = storedAnswers(storage, 'collateral-hygon', now);
  return {
    name: source.name,
    chipChain: (serialNumber) => ask(serialNumber, lifetimeMs, () => source.chipChain(serialNumber)),
  };
}
