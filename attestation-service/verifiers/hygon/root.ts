import { type HygonCertificate, hygonAuthorityBytes, parseHygonAuthority } from '@sealpod/protocol/hygon';

/** Members of Hygon's root certificate (HRK) that are not zero; numbers are little-endian, as in the certificate. */
const members: readonly (readonly [at: number, hexadecimal: string])[] = [
  [0x00, '01000000'],
  [0x04, '3ae86a9701355cce333a589de21583d7'],
  [0x14, '3ae86a9701355cce333a589de21583d7'],
  [0x40, '03000000'],
  [0x44, '2df6c2921df2f52a501fcd85e73509c8753a5609db02d7f34cf1a4624de162be'],
  [0x8c, '46b91eb4684d74384788beb9100c644a38954e16978b4f581570bb573a12ab3b'],
  [0xd4, '0d00'],
  [0xd6, Buffer.from('HYGON-SSD-HRK').toString('hex')],
  [0x240, '2965ffee8ce048a0cb8e0b3be6ceb758099433628df7e60847c8be40a4dab6b1'],
  [0x288, '50d76be34fbb2b857c56a351f323d581ab542549c6a1c9b546d3798ede21438e'],
];

/** Hygon's root certificate, of which there is one for all chips. */
export const hygonRoot: HygonCertificate = parseHygonAuthority(
  members.reduce((bytes, [at, hexadecimal]) => {
    Buffer.from(hexadecimal, 'hex').copy(bytes, at);
    return bytes;
  }, Buffer.alloc(hygonAuthorityBytes)),
);
