import { initdataDigest } from '@sealpod/protocol/initdata';
import type { JsonObject } from '@sealpod/protocol/json';
import { runtimeDataDigest } from '@sealpod/protocol/rcar';
import type { TpmEvidence } from '@sealpod/protocol/tpm';
import type { QuoteOptions, SoftwareTpm } from '@sealpod/protocol/tpm/testing';
import type { AttestationService, EvidenceToEvaluate } from '../../../service.ts';
import { type BootEvent, boot, bootEvents, encodeLog, type Machine, machine } from './boot.ts';

export const initdata = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"aa.toml" = ""\n';

/** A booted machine with its TPM, ready to attest. */
export class TestGuest {
  readonly tpm: SoftwareTpm;
  readonly certificate: Buffer;
  readonly machine: Machine;
  readonly events: readonly BootEvent[];
  readonly initdata: string | undefined;

  constructor(
    tpm: SoftwareTpm,
    certificate: Buffer,
    options: {
      readonly machine?: Partial<Machine>;
      readonly events?: (events: BootEvent[]) => BootEvent[];
      readonly initdata?: string | null;
    } = {},
  ) {
    this.tpm = tpm;
    this.certificate = certificate;
    this.machine = { ...machine, ...options.machine };
    const events = bootEvents(this.machine);
    this.events = options.events?.(events) ?? events;
    this.initdata = options.initdata === null ? undefined : (options.initdata ?? initdata);
    boot(tpm, this.events, this.initdata === undefined ? undefined : initdataDigest(this.initdata, 'sha256'));
  }

  /** The challenge request of one session, answered by the service and by this TPM. */
  async activate(
    service: Pick<AttestationService, 'challenge'>,
    nonce: string,
    akPublic = this.tpm.publicArea,
  ): Promise<Buffer> {
    const answer = await service.challenge({
      tee: 'tpm',
      tee_params: JSON.stringify({
        nonce,
        'ek-certificate': this.certificate.toString('base64'),
        'ak-public': akPublic.toString('base64'),
      }),
    });
    const { 'credential-blob': blob, 'encrypted-secret': secret } = JSON.parse(answer) as Record<string, string>;
    return this.tpm.activate(Buffer.from(blob ?? '', 'base64'), Buffer.from(secret ?? '', 'base64'));
  }

  /** Evidence for a session. */
  evidence(session: Session, activatedSecret: Buffer, quote: QuoteOptions = {}): TpmEvidence {
    const { message, signature } = this.tpm.quote(runtimeDataDigest(session).subarray(0, 32), quote);
    return {
      ak_public: this.tpm.attestationPublicKey.toString('base64'),
      tpm_quote: {
        signature: signature.toString('base64'),
        message: message.toString('base64'),
        pcrs: this.tpm.pcrs.map((value) => value.toString('hex')),
      },
      ak_public_area: this.tpm.publicArea.toString('base64'),
      ek_certificate: this.certificate.toString('base64'),
      activated_secret: activatedSecret.toString('base64'),
      event_log: encodeLog(this.events).toString('base64'),
      kernel_command_line: `${this.machine.commandLine}\n`,
    };
  }
}

/** What a session is bound to. */
export interface Session {
  readonly nonce: string;
  readonly teePubKey: {
    readonly kty: 'EC';
    readonly crv: string;
    readonly alg: string;
    readonly x: string;
    readonly y: string;
  };
  readonly additionalEvidence: string;
}

export function session(nonce: string, key = 'key'): Session {
  return {
    nonce,
    teePubKey: { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: key, y: key },
    additionalEvidence: '',
  };
}

/** The evaluation request that a key broker makes of a session. */
export function toEvaluate(
  evidence: TpmEvidence,
  { nonce, teePubKey, additionalEvidence }: Session,
  toml: string | undefined,
): EvidenceToEvaluate {
  return {
    tee: 'tpm',
    evidence: evidence as unknown as JsonObject,
    runtimeData: { structured: { nonce, 'tee-pubkey': teePubKey, 'additional-evidence': additionalEvidence } },
    ...(toml === undefined ? {} : { initData: { toml } }),
  };
}
