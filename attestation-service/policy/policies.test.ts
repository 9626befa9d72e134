import { existsSync, readFileSync } from 'node:fs';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import { vectorPath } from '@sealpod/protocol/testing/vectors';
import { createRegoEngine } from '@sealpod/rego';
import { afterAll, describe, expect, it } from 'vitest';
import { learnable, measuredClaims } from '../reference-values/measured.ts';
import { builtInPolicies } from './built-in.ts';
import { checkAttestationPolicy } from './check.ts';

const rego = createRegoEngine();
afterAll(() => rego.close());

const vectorOf = async (
  policy: string,
  input: JsonObject,
  referenceValues: Readonly<Record<string, JsonValue>> = {},
): Promise<unknown> => {
  const { values } = await rego.evaluate({
    policy,
    rules: ['data.policy.trust_claims', 'data.policy.extensions'],
    input,
    data: {},
    functions: { query_reference_value: referenceValues },
  });
  return values;
};
const builtIn = (id: string): string => builtInPolicies[id] ?? '';

/** Claims of one machine of each TEE, in upstream's shape. */
const machines: Readonly<Record<string, JsonObject>> = {
  sample: {
    svn: '1',
    launch_digest: 'abcde',
    platform_version: { major: 1, minor: 4 },
    debug: false,
  },
  snp: {
    measurement: 'aa',
    reported_tcb_bootloader: 3,
    reported_tcb_tee: 0,
    reported_tcb_snp: 8,
    reported_tcb_microcode: 115,
    policy_abi_major: 0,
    policy_abi_minor: 31,
    policy_smt_allowed: true,
    policy_migrate_ma: false,
    policy_debug_allowed: false,
    policy_single_socket: false,
    platform_smt_enabled: true,
    platform_tsme_enabled: false,
  },
  'az-snp-vtpm': {
    measurement: 'qqo=',
    tpm: { pcr11: 'bb' },
    reported_tcb_bootloader: '3',
    reported_tcb_tee: '0',
    reported_tcb_snp: '8',
    reported_tcb_microcode: '115',
    policy_abi_major: '0',
    policy_abi_minor: '31',
    policy_smt_allowed: 'true',
    policy_single_socket: 'false',
    platform_smt_enabled: 'true',
    platform_tsme_enabled: 'false',
  },
  tdx: {
    quote: {
      header: { tee_type: '81000000', vendor_id: '939a7233f79c4ca9940a0db3957f0607' },
      body: { mr_td: 'aa', rtmr_1: 'bb', rtmr_2: 'cc', xfam: 'dd' },
    },
    td_attributes: { debug: false },
    tcb_status: 'UpToDate',
    collateral_expiration_status: '0',
    uefi_event_logs: [
      {
        type_name: 'EV_EFI_BOOT_SERVICES_APPLICATION',
        details: { device_paths: ['File(kernel)'] },
        digests: [{ alg: 'SHA-384', digest: 'ee' }],
      },
      {
        type_name: 'EV_EVENT_TAG',
        details: { string: 'LOADED_IMAGE::LoadOptions' },
        digests: [{ alg: 'SHA-384', digest: 'ff' }],
      },
    ],
  },
  'az-tdx-vtpm': {
    quote: {
      header: { tee_type: '81000000', vendor_id: '939a7233f79c4ca9940a0db3957f0607' },
      body: { mr_td: 'aa', xfam: 'dd' },
    },
    td_attributes: { debug: false },
    tcb_status: 'UpToDate',
    collateral_expiration_status: '0',
    tpm: { pcr11: 'bb' },
  },
  sgx: {
    header: { vendor_id: '939a7233f79c4ca9940a0db3957f0607' },
    body: {
      mr_enclave: 'aa',
      mr_signer: 'bb',
      isv_prod_id: '0000',
      isv_svn: '0100',
      'attributes.flags': '0500000000000000',
    },
    tcb_status: 'UpToDate',
    collateral_expiration_status: '0',
  },
  cca: {
    realm: { 'cca-realm-initial-measurement': 'aa' },
    sealpod: { appraised_by: 'local stores', platform_lifecycle: 'secured' },
  },
  csv: { version: '2', measure: 'aa', build: '2', policy: { nodbg: 1, es: 1 } },
};

/** Paths of the leaves of claims. */
function leaves(value: JsonValue, path: readonly string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [[...path]];
  return Object.entries(value).flatMap(([name, member]) => leaves(member as JsonValue, [...path, name]));
}

/** Claims with another value at one leaf. */
function changed(value: JsonValue, [name, ...rest]: readonly string[]): JsonValue {
  if (name === undefined)
    return typeof value === 'boolean' ? !value : typeof value === 'number' ? value - 1 : `${String(value)}-`;
  const copy = structuredClone(value) as Record<string, JsonValue>;
  copy[name] = changed(copy[name] ?? null, rest);
  return copy;
}

const statusOf = (values: unknown): boolean => {
  const { 'data.policy.trust_claims': claims } = values as { 'data.policy.trust_claims': Record<string, number> };
  return ['executables', 'hardware', 'configuration'].every((name) => {
    const value = claims[name] ?? 0;
    return value > 1 && value < 32;
  });
};

describe('the default policy', () => {
  it.each(Object.keys(machines))(
    'affirms %s with the reference values that are learned from it, and without any not',
    async (tee) => {
      const claims = machines[tee] ?? {};
      const learned = learnable(tee, claims);
      expect(statusOf(await vectorOf(builtIn('default_cpu'), { [tee]: claims }, learned))).toBe(true);
      expect(statusOf(await vectorOf(builtIn('default_cpu'), { [tee]: claims }))).toBe(false);
    },
  );

  it.each(Object.keys(machines))(
    'affirms %s no more where any reference value is missing, but for alternatives',
    async (tee) => {
      const claims = machines[tee] ?? {};
      const learned = learnable(tee, claims);
      // The enclave's own measurement needs no signer beside it; the kernel is measured into the registers too.
      const spare = /^(sgx_|tdvf)/;
      const platform = /^snp_(smt|tsme|guest_abi|single|allowed)/;
      for (const id of Object.keys(learned).filter((name) => !spare.test(name) && !platform.test(name))) {
        const { [id]: _, ...others } = learned;
        expect(statusOf(await vectorOf(builtIn('default_cpu'), { [tee]: claims }, others)), id).toBe(false);
      }
    },
  );

  it.each([
    ['snp', ['policy_debug_allowed']],
    ['snp', ['policy_migrate_ma']],
    ['tdx', ['td_attributes', 'debug']],
    ['tdx', ['tcb_status']],
    ['tdx', ['collateral_expiration_status']],
    ['az-tdx-vtpm', ['td_attributes', 'debug']],
    ['az-tdx-vtpm', ['tcb_status']],
    ['az-tdx-vtpm', ['collateral_expiration_status']],
    ['sgx', ['tcb_status']],
    ['csv', ['policy', 'nodbg']],
  ] as const)('does not affirm %s with another %s', async (tee, path) => {
    const claims = machines[tee] ?? {};
    const other = changed(claims, path) as JsonObject;
    expect(statusOf(await vectorOf(builtIn('default_cpu'), { [tee]: other }, learnable(tee, claims)))).toBe(false);
  });

  it('knows an enclave in debug mode by its attributes', async () => {
    const sgx = machines['sgx'] ?? {};
    const debug: JsonObject = {
      ...sgx,
      body: { ...(sgx['body'] as JsonObject), 'attributes.flags': '0700000000000000' },
    };
    const values = await vectorOf(builtIn('default_cpu'), { sgx: debug }, learnable('sgx', debug));
    expect(statusOf(values)).toBe(false);
  });
});

describe('policies that come with the service', () => {
  it.each(['default_cpu', 'trustee_cpu'])('%s asks for no reference value of another TEE', async (id) => {
    for (const [tee, claims] of Object.entries(machines)) {
      const { referenceValueIds } = await rego.evaluate({
        policy: builtIn(id),
        rules: ['data.policy.trust_claims'],
        input: { [tee]: claims },
        data: {},
        functions: { query_reference_value: {} },
      });
      const own = measuredClaims(tee).map((claim) => claim.id);
      expect(
        referenceValueIds.filter((name) => !own.includes(name)),
        tee,
      ).toEqual([]);
    }
  });

  it.each(Object.keys(builtInPolicies))('%s passes the checks of an upload', async (id) => {
    const { dryRuns } = await checkAttestationPolicy(rego, { id, policy: builtIn(id) });
    expect(dryRuns).toEqual([]);
  });
});

const recorded = vectorPath('recorded/rcar/cli-unknown-claim.json');
describe.skipIf(!existsSync(recorded))(
  "policy trustee_cpu and upstream's own (skipped where the vectors are absent)",
  () => {
    const upstream = (): string => {
      const { exchanges } = JSON.parse(readFileSync(recorded, 'utf8')) as {
        exchanges: { request: { body_utf8?: string } }[];
      };
      const texts = exchanges.flatMap(({ request: { body_utf8: body = '' } }) =>
        body.includes('"policy_id"') ? [String((JSON.parse(body) as { policy: string }).policy)] : [],
      );
      return Buffer.from(texts.find((text) => text.length > 5000) ?? '', 'base64url').toString();
    };

    it('answer alike for every machine, with and without reference values, and with each claim changed', async () => {
      const theirs = upstream();
      let compared = 0;
      const same = async (input: JsonObject, values: JsonObject): Promise<void> => {
        compared += 1;
        expect(await vectorOf(builtIn('trustee_cpu'), input, values), JSON.stringify(input)).toEqual(
          await vectorOf(theirs, input, values),
        );
      };
      const tpm = { tpm: { pcr11: 'aa', ak_public: 'bb' } };
      await same(tpm, {});
      await same(tpm, { tpm_pcr11: ['aa'], trusted_aks: ['bb'] });
      await same({}, {});
      const container = {
        OCI: { Annotations: { 'io.kubernetes.cri.image-name': 'i' }, Process: { User: { UID: 7 } } },
      };
      await same({ sample: {}, init_data_claims: { agent_policy_claims: { containers: [container, {}] } } }, {});
      for (const [tee, claims] of Object.entries(machines)) {
        const learned = learnable(tee, claims);
        // Upstream compares these with one value.
        const scalars = Object.fromEntries(
          Object.entries(learned).map(([id, value]) => [
            id,
            id.startsWith('tdvf') ? ((value as JsonValue[])[0] ?? null) : value,
          ]),
        );
        await same({ [tee]: claims }, {});
        await same({ [tee]: claims }, scalars);
        for (const path of leaves(claims)) await same({ [tee]: changed(claims, path) }, scalars);
        for (const id of Object.keys(scalars)) {
          const { [id]: _, ...others } = scalars;
          await same({ [tee]: claims }, others);
        }
      }
      expect(compared).toBeGreaterThan(100);
    });
  },
);
