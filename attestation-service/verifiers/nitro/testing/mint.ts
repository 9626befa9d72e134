import type { KeyObject } from 'node:crypto';
import { type CborValue, encodeCbor } from '@sealpod/protocol/cose';
import { type MintSign1Options, mintCoseSign1 } from '@sealpod/protocol/cose/testing';
import { type Issued, issue } from '../../testing/authority.ts';

/** Members of a document; undefined is one that is left out. */
export type NitroMembers = Readonly<Record<string, CborValue>>;

/** Register `number` of a test's enclave. */
export function nitroRegister(number: number): Buffer {
  return Buffer.alloc(48, number + 1);
}

/** Registers by number. */
export function nitroRegisters(...numbers: readonly number[]): Map<number, Buffer> {
  return new Map(numbers.map((number) => [number, nitroRegister(number)]));
}

/** A test's AWS: root, zone, and the key of one enclave, whose certificate lives for three hours. */
export class TestNitro {
  readonly root: Issued;
  readonly zone: Issued;
  readonly leaf: Issued;
  readonly now = new Date('2026-06-01T00:00:00Z');
  readonly reportData: Buffer;

  private constructor(root: Issued, zone: Issued, leaf: Issued, reportData: Buffer) {
    this.root = root;
    this.zone = zone;
    this.leaf = leaf;
    this.reportData = reportData;
  }

  static async create(reportData: Buffer): Promise<TestNitro> {
    const root = await issue(undefined, 'CN=aws.nitro-enclaves', { authority: true });
    const zone = await issue(root, 'CN=zone', { authority: true });
    const leaf = await issue(zone, 'CN=i-1', { notAfter: new Date('2026-06-01T03:00:00Z') });
    return new TestNitro(root, zone, leaf, reportData);
  }

  /** A signed document; `changes` are made before it is signed. */
  document(changes: NitroMembers = {}, key: KeyObject = this.leaf.key, options: MintSign1Options = {}): Buffer {
    const members: NitroMembers = {
      module_id: 'i-1-enc1',
      digest: 'SHA384',
      timestamp: this.now.getTime() - 1000,
      pcrs: nitroRegisters(0, 1, 2, 3, 8),
      certificate: this.leaf.der,
      cabundle: [this.root.der, this.zone.der],
      public_key: null,
      user_data: this.reportData,
      nonce: null,
      ...changes,
    };
    const payload = new Map(Object.entries(members).filter(([, value]) => value !== undefined));
    return mintCoseSign1(encodeCbor(payload), key, { tagged: false, ...options });
  }
}
