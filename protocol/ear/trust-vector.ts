/** Names of the trustworthiness vector (draft-ietf-rats-ar4si, draft-ietf-rats-ear). */
export const trustClaims = [
  'instance-identity',
  'configuration',
  'executables',
  'file-system',
  'hardware',
  'runtime-opaque',
  'storage-opaque',
  'sourced-data',
] as const;

export type TrustClaim = (typeof trustClaims)[number];

/** Claim → value, an integer of -128 to 127. */
export type TrustVector = Readonly<Partial<Record<TrustClaim, number>>>;

/** Trust tiers from best known to worst; `none` says nothing. */
const tiers = ['none', 'affirming', 'warning', 'contraindicated'] as const;
export type EarStatus = (typeof tiers)[number];

/** Whether `name` is a claim of the vector. */
export function isTrustClaim(name: string): name is TrustClaim {
  return (trustClaims as readonly string[]).includes(name);
}

/** The tier of one value (AR4SI §2.3.2): -1..1 none, else -32..31 affirming, else -96..95 warning, else contraindicated. */
export function tierOf(value: number): EarStatus {
  if (value >= -1 && value <= 1) return 'none';
  if (value >= -32 && value <= 31) return 'affirming';
  if (value >= -96 && value <= 95) return 'warning';
  return 'contraindicated';
}

/** The status of a submodule: the worst tier of its vector; `none` where nothing was claimed. */
export function statusOf(vector: TrustVector): EarStatus {
  const worst = Object.values(vector).reduce((rank, value) => Math.max(rank, tiers.indexOf(tierOf(value))), 0);
  return tiers[worst] ?? 'contraindicated';
}
