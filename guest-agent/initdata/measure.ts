import { SealpodError } from '@sealpod/protocol/errors';
import {
  type AttestationAgentConfiguration,
  composeInitdata,
  type DataHubConfiguration,
  type Initdata,
  initdataDigest,
  initdataFiles,
  initdataText,
  parseInitdata,
  readAttestationAgentConfiguration,
  readDataHubConfiguration,
} from '@sealpod/protocol/initdata';

/** The register that upstream's vTPM attesters extend with the initdata digest. */
export const initdataPcr = 8;

/**
 * What a guest without initdata measures: a document without files. It configures no key broker and no policy, so
 * everything is refused; measuring it makes "no initdata" a statement that a verifier can see.
 */
export const emptyInitdata = composeInitdata({ algorithm: 'sha256', data: {} });

/** Configuration of this guest. All of it is measured before the guest serves anything. */
export interface MeasuredInitdata {
  /** SHA-256 over the raw document. */
  readonly digest: Buffer;
  /** The document as it was measured; it travels with the evidence. */
  readonly text: string;
  readonly initdata: Initdata;
  readonly attestationAgent: AttestationAgentConfiguration;
  readonly dataHub: DataHubConfiguration;
  /** Rego; undefined where none was given, which denies everything. */
  readonly agentPolicy: string | undefined;
}

/**
 * Measures the document, then reads it: the digest is extended into the PCR before one byte is interpreted, so whatever a
 * document may do to the parser, it cannot hide that it was there.
 *
 * @param document raw bytes of the initdata disk; undefined where the machine has none
 * @param extend extends {@link initdataPcr}; any failure is final
 * @throws SealpodError INITDATA_SCHEMA, TEE_*
 */
export async function measureInitdata(
  document: Uint8Array | undefined,
  extend: (pcr: number, digest: Buffer) => Promise<void>,
): Promise<MeasuredInitdata> {
  const bytes = document ?? Buffer.from(emptyInitdata);
  const digest = initdataDigest(bytes, 'sha256');
  await extend(initdataPcr, digest);

  const text = initdataText(bytes);
  const initdata = parseInitdata(text);
  if (initdata.algorithm !== 'sha256') {
    throw new SealpodError('INITDATA_SCHEMA', 'this guest measures initdata into SHA-256 registers', {
      expected: 'algorithm = "sha256"',
      actual: initdata.algorithm,
    });
  }
  return {
    digest,
    text,
    initdata,
    attestationAgent: readAttestationAgentConfiguration(initdata.data[initdataFiles.attestationAgent] ?? ''),
    dataHub: readDataHubConfiguration(initdata.data[initdataFiles.dataHub] ?? ''),
    agentPolicy: initdata.data[initdataFiles.agentPolicy],
  };
}
