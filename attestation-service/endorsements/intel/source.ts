/** Whose collateral: TCB info and the identity of the quoting enclave differ between the two. */
export type IntelTee = 'sgx' | 'tdx';

/** Which of Intel's authorities issued a platform's certificate: of platforms with several packages, or of one processor. */
export type PckAuthority = 'platform' | 'processor';

/** What a place answered. Nobody has verified it. */
export interface IntelAnswer {
  /** JSON of TCB info (`{tcbInfo, signature}`) or enclave identity (`{enclaveIdentity, signature}`); DER of a list. */
  readonly document: Buffer;
  /** Certificates of whoever signed it, PEM; absent for the list of the root. */
  readonly issuerChain?: string;
}

/** How a quote names the platform's certificate where it does not bring it (certification data of types 1 to 3). */
export interface PlatformIdentity {
  readonly encryptedPlatformId: Buffer;
  readonly cpuSvn: Buffer;
  readonly pceSvn: number;
  readonly pceId: Buffer;
  readonly qeId: Buffer;
}

/**
 * A place that has Intel's collateral; undefined where it does not have it.
 *
 * @throws SealpodError EV_COLLATERAL_UNAVAILABLE where the place cannot be asked
 */
export interface IntelCollateralSource {
  /** For explanations. */
  readonly name: string;
  /** `fmspc` is 12 hexadecimal digits in upper case. */
  tcbInfo(tee: IntelTee, fmspc: string): Promise<IntelAnswer | undefined>;
  qeIdentity(tee: IntelTee): Promise<IntelAnswer | undefined>;
  pckRevocationList(authority: PckAuthority): Promise<IntelAnswer | undefined>;
  rootRevocationList(): Promise<IntelAnswer | undefined>;
  /** The certificate of a platform and those above it, PEM. Absent where the place has none. */
  pckChain?(platform: PlatformIdentity): Promise<Buffer | undefined>;
  /** The same place, asked anew and not from what it answered before. Absent where nothing is kept. */
  readonly renewed?: IntelCollateralSource;
}
