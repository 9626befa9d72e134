import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { composeInitdata, encodeInitdataDisk } from '@sealpod/protocol/initdata';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readInitdataDisk } from './initdata-disk.ts';
import { emptyInitdata, measureInitdata } from './measure.ts';

const document = composeInitdata({ data: { 'policy.rego': 'package agent_policy\n' } });

describe('readInitdataDisk', () => {
  let devices: string;
  beforeEach(() => {
    devices = mkdtempSync(join(tmpdir(), 'sealpod-devices-'));
  });
  afterEach(() => rmSync(devices, { recursive: true, force: true }));
  const disk = (name: string, content: Buffer): void => writeFileSync(join(devices, name), content);

  it('finds the document among other disks, whatever its name', async () => {
    disk('vda', Buffer.alloc(4096, 1));
    disk('vdb', encodeInitdataDisk(document));
    disk('sda', Buffer.alloc(3));
    mkdirSync(join(devices, 'pts'));
    expect((await readInitdataDisk(devices))?.toString()).toBe(document);
  });

  it('looks at whole virtio and SCSI disks only', async () => {
    for (const name of ['vda1', 'sda2', 'nvme0n1', 'loop0', 'vd', 'xvda']) disk(name, encodeInitdataDisk(document));
    expect(await readInitdataDisk(devices)).toBeUndefined();
  });

  it('gives the bytes as they are, even where they are no document', async () => {
    disk('vdb', encodeInitdataDisk(Buffer.from([0xff, 0x00])));
    expect(await readInitdataDisk(devices)).toEqual(Buffer.from([0xff, 0x00]));
  });

  it('refuses two of them: which one counts must not be the choice of the host', async () => {
    disk('vdb', encodeInitdataDisk(document));
    disk('vdc', encodeInitdataDisk(emptyInitdata));
    await expect(readInitdataDisk(devices)).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
  });

  it('refuses a damaged one instead of going on without', async () => {
    disk('vdb', encodeInitdataDisk(document).subarray(0, 40));
    await expect(readInitdataDisk(devices)).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
  });
});

describe('measureInitdata', () => {
  /** Records what is extended. */
  function register() {
    const extended: { pcr: number; digest: string }[] = [];
    return {
      extended,
      extend: async (pcr: number, digest: Buffer) => void extended.push({ pcr, digest: digest.toString('hex') }),
    };
  }
  const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex');

  it('extends PCR 8 with the SHA-256 of the raw document', async () => {
    const { extended, extend } = register();
    const measured = await measureInitdata(Buffer.from(document), extend);
    expect(extended).toEqual([{ pcr: 8, digest: digestOf(document) }]);
    expect(measured.text).toBe(document);
    expect(measured.agentPolicy).toBe('package agent_policy\n');
  });

  it('measures first, whatever the document is', async () => {
    for (const bad of ['no TOML', document.replace('sha256', 'sha384'), document.replace('0.1.0', '9'), '\u0000']) {
      const { extended, extend } = register();
      await expect(measureInitdata(Buffer.from(bad), extend)).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
      expect(extended).toEqual([{ pcr: 8, digest: digestOf(bad) }]);
    }
    const { extended, extend } = register();
    await expect(measureInitdata(Buffer.from([0xff]), extend)).rejects.toMatchObject({ code: 'INITDATA_SCHEMA' });
    expect(extended).toHaveLength(1);
  });

  it('reads nothing where it could not be measured', async () => {
    const failing = measureInitdata(Buffer.from('no TOML'), async () => {
      throw new Error('the register cannot be extended');
    });
    await expect(failing).rejects.toThrow('cannot be extended');
  });

  it('takes documents as users of upstream write them: what is not known here is left alone', async () => {
    const document = (algorithm: string) =>
      Buffer.from(`algorithm = "${algorithm}"
version = "0.1.0"

[data]
"aa.toml" = '''
[token_configs]
[token_configs.coco_as]
url = "http://127.0.0.1:50004"

[token_configs.kbs]
url = "https://kbs.test:8080"

[eventlog_config]
enable_eventlog = true
'''

"cdh.toml" = '''
socket = 'unix:///run/confidential-containers/cdh.sock'
credentials = []

[kbc]
name = "cc_kbc"
url = "https://kbs.test:8080"

[image]
image_security_policy_uri = "kbs:///default/security-policy/test"
authenticated_registry_credentials_uri = "kbs:///default/credential/test"

[image.image_pull_proxy]
https_proxy = "http://127.0.0.1:5432"
'''

"policy.rego" = '''
package agent_policy
'''

"other.txt" = "x"
`);
    for (const algorithm of ['sha256', 'sha-256']) {
      const measured = await measureInitdata(document(algorithm), async () => undefined);
      expect(measured.attestationAgent.kbs?.url).toBe('https://kbs.test:8080');
      expect(measured.dataHub).toMatchObject({
        kbc: { name: 'cc_kbc', url: 'https://kbs.test:8080' },
        image: {
          imageSecurityPolicyUri: 'kbs:///default/security-policy/test',
          authenticatedRegistryCredentialsUri: 'kbs:///default/credential/test',
        },
      });
      expect(measured.agentPolicy).toBe('package agent_policy\n');
    }
    await expect(measureInitdata(document('sha384'), async () => undefined)).rejects.toMatchObject({
      code: 'INITDATA_SCHEMA',
    });
  });

  it('measures the absence of a document as the empty one, which configures nothing', async () => {
    const { extended, extend } = register();
    const measured = await measureInitdata(undefined, extend);
    expect(extended).toEqual([{ pcr: 8, digest: digestOf(emptyInitdata) }]);
    expect(measured.agentPolicy).toBeUndefined();
    expect(measured.attestationAgent).toEqual({});
    expect(measured.dataHub.image.imageSecurityPolicy).toBeUndefined();
    expect(measured.dataHub.skipSealedSecretVerification).toBe(false);
    // Published in docs: a verifier may name it.
    expect(emptyInitdata).toBe('algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n');
  });
});
