/**
 * Text of the nodes of an EFI device path (UEFI specification 2.10, section 10.6.1.6, "Text Device Node Reference"), spelled
 * as upstream spells them, since policies compare them. Nodes that upstream does not know are `Path(type,subtype,hex)`.
 *
 * @returns undefined where the nodes do not fit into the bytes
 */
export function devicePathTexts(path: Buffer): string[] | undefined {
  const texts: string[] = [];
  for (let at = 0; at < path.length; ) {
    if (path.length - at < headerBytes) return undefined;
    const [type = 0, subtype = 0] = path.subarray(at);
    const length = path.readUInt16LE(at + 2);
    if (length < headerBytes || length > path.length - at) return undefined;
    texts.push(nodeText(type, subtype, path.subarray(at + headerBytes, at + length)));
    at += length;
  }
  return texts;
}

const headerBytes = 4;

function nodeText(type: number, subtype: number, data: Buffer): string {
  const known = nodes[`${type}/${subtype}`];
  const text = known !== undefined && data.length >= known.bytes ? known.text(data) : undefined;
  return text ?? `Path(${type},${subtype},${data.toString('hex')})`;
}

interface NodeKind {
  /** The least length of its data. */
  readonly bytes: number;
  readonly text: (data: Buffer) => string | undefined;
}

const nodes: Readonly<Record<string, NodeKind>> = {
  '1/1': { bytes: 2, text: (data) => `Pci(${data[0]},${data[1]})` },
  '2/1': { bytes: 8, text: (data) => `ACPI(${eisaId(data.readUInt32LE(0))},${data.readUInt32LE(4)})` },
  '3/5': { bytes: 2, text: (data) => `USB(${data[0]},${data[1]})` },
  '3/11': { bytes: 33, text: macAddress },
  '3/12': { bytes: 23, text: ipv4 },
  '3/21': {
    bytes: 16,
    text: (data) => `FibreEx(0x${data.toString('hex', 0, 8)},0x${data.toString('hex', 8, 16)})`,
  },
  '4/1': { bytes: 38, text: hardDrive },
  '4/3': { bytes: 16, text: (data) => `VenMedia(${guid(data)},${data.toString('hex', 16)})` },
  '4/4': {
    bytes: 2,
    text: (data) => (data.length % 2 === 0 ? `File(${data.subarray(0, -2).toString('utf16le')})` : undefined),
  },
  '5/1': { bytes: 4, text: bootSpecification },
};

/** A compressed EISA identifier: three letters of five bits, then the product. */
function eisaId(id: number): string {
  const letter = (shift: number): string => String.fromCharCode(((id >> shift) & 0x1f) + 0x40);
  return `${letter(10)}${letter(5)}${letter(0)}${hex(id >>> 16, 4)}`;
}

/** Upstream cuts the padding at the last digit that is not zero. */
function macAddress(data: Buffer): string {
  return `Mac(${data.toString('hex', 0, 31).replace(/0+$/, '').toUpperCase()},0x${hex(data[32] ?? 0, 2)})`;
}

function ipv4(data: Buffer): string {
  const address = (at: number): string => [...data.subarray(at, at + 4)].reverse().join('.');
  const protocol = { 6: 'TCP', 17: 'UDP' }[data.readUInt16LE(12)] ?? '';
  const origin = { 0: 'DHCP', 1: 'Static' }[data[14] ?? -1] ?? '';
  const [gateway, mask] = [data.readUInt32LE(15), data.readUInt32LE(19)];
  const network = gateway === 0 && mask === 0 ? '' : `,${gateway},${mask}`;
  return `IPv4(${address(4)},${protocol},${origin},${address(0)}${network})`;
}

function hardDrive(data: Buffer): string | undefined {
  const partition = data.readUInt32LE(0);
  const signatures: Readonly<Record<number, string>> = {
    1: `MBR,0x${data.readUInt32LE(20).toString(16).padStart(8, '0')}`,
    2: `GPT,${guid(data.subarray(20))}`,
  };
  const signature = signatures[data[36] ?? 0];
  if (signature === undefined) return undefined;
  const place = `,0x${data.readBigUInt64LE(4).toString(16)},0x${data.readBigUInt64LE(12).toString(16)}`;
  return `HD(${partition},${signature}${partition === 0 ? '' : place})`;
}

const bootDevices: Readonly<Record<number, string>> = {
  1: 'FLOPPY',
  2: 'HARD_DRIVE',
  3: 'CDROM',
  4: 'PCMCIA',
  5: 'USB',
  6: 'EMBEDDED_NETWORK',
  128: 'DEV',
  255: 'UNKNOWN',
};

function bootSpecification(data: Buffer): string {
  const device = data.readUInt16LE(0);
  const end = data.indexOf(0, 4);
  const description = data.toString('utf8', 4, end < 0 ? data.length : end);
  return `BBS(${bootDevices[device] ?? device},${description},${data.readUInt16LE(2)})`;
}

/** A GUID as EFI writes it: the first three parts are little-endian. */
function guid(bytes: Buffer): string {
  const rest = bytes.toString('hex', 8, 16).toUpperCase();
  const parts = [hex(bytes.readUInt32LE(0), 8), hex(bytes.readUInt16LE(4), 4), hex(bytes.readUInt16LE(6), 4)];
  return `${parts.join('-')}-${rest.slice(0, 4)}-${rest.slice(4)}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}
