/** What an image says of the program that it holds (OCI image-spec config, as far as it is used here). */
export interface ImageConfig {
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly User?: string;
  readonly WorkingDir?: string;
}

/** Brings an image's root file system into the guest, after image policy, digests and decryption. */
export interface ImagePuller {
  /**
   * @param imageRef a reference, by tag or digest
   * @param bundleDirectory an empty folder; the root file system is made at `rootfs` below it
   */
  pull(
    imageRef: string,
    bundleDirectory: string,
    signal?: AbortSignal,
  ): Promise<{ manifestDigest: string; rootfs: string; config: ImageConfig }>;

  /** Takes off and frees what `pull` made at a folder; nothing where it made nothing. */
  release(bundleDirectory: string): Promise<void>;
}
