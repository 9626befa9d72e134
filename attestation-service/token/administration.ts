/** A key that tokens are, were or will be signed with. Its private half is never told. */
export interface TokenKeyDescription {
  /** RFC 7638 thumbprint, as in the published key set and in the header of tokens. */
  readonly kid: string;
  /**
   * `next` is published and does not sign yet; `signing` signs; `retired` signs no more and stays published until the last
   * token that it signed has expired.
   */
  readonly state: 'next' | 'signing' | 'retired';
  /** RFC 3339; absent for the key of a release that did not keep it. */
  readonly signsFrom?: string;
  /** RFC 3339: from then on no token of it is valid and it leaves the key set. Absent while nothing follows it. */
  readonly publishedUntil?: string;
}

/** What an administrator may do with the keys that sign tokens. */
export interface TokenKeyAdministration {
  /** The published keys, oldest first. @throws SealpodError STORAGE */
  list(): Promise<readonly TokenKeyDescription[]>;
  /**
   * Publishes a new key, which takes over after five minutes, so that caches of the key set know it by then. Where a key
   * waits for that already, nothing is added.
   *
   * @throws SealpodError STORAGE
   */
  rotate(): Promise<{ readonly rotated: boolean; readonly keys: readonly TokenKeyDescription[] }>;
}
