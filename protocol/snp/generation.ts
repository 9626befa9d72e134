/** A processor generation of AMD EPYC with SEV-SNP, by the name that AMD's key distribution service uses. */
export type SnpGeneration = 'Milan' | 'Genoa' | 'Turin';

/** All generations that are known here. */
export const snpGenerations: readonly SnpGeneration[] = ['Milan', 'Genoa', 'Turin'];

/**
 * The generation of a combined family and extended model, as reports of version 3 and later carry them
 * (SEV-SNP ABI, table 23; family 0x19 has Milan and Genoa with Siena and Bergamo, 0x1A has Turin).
 * Undefined where the model is not known.
 */
export function snpGenerationOf(family: number, model: number): SnpGeneration | undefined {
  if (family === 0x19) {
    if (model <= 0x0f) return 'Milan';
    if ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf)) return 'Genoa';
  }
  if (family === 0x1a && model <= 0x11) return 'Turin';
  return undefined;
}
