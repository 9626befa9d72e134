/**
 * How a pod's start is told: what the adaptor answers on its status socket, and node agent and command line read.
 *
 * @module
 */
import { isReasonCode, type ReasonCode } from '../reason-codes.ts';

/**
 * What a start consists of. `network`, `creating-vm` and `booting` are seen by the adaptor; `attesting`, `pulling`,
 * `unsealing` and `starting` are told by the guest, and attesting lies within the stage that first needs the key broker.
 */
export const startStages = [
  'network',
  'creating-vm',
  'booting',
  'attesting',
  'pulling',
  'unsealing',
  'starting',
] as const;

/** One of the stages of a start. */
export type StartStage = (typeof startStages)[number];

/** One stage that was begun. */
export interface StageRecord {
  readonly stage: StartStage;
  /**
   * `network`: `host` (the tap) or `guest` (addresses and routes). `booting`: none for the whole, and `firmware`,
   * `kernel`, `agent` for what it consists of, as far as the console tells.
   */
  readonly part?: string;
  /** Milliseconds since 1970 of the host's clock. */
  readonly startedAt: number;
  /** Milliseconds; absent while it is under way. */
  readonly durationMs?: number;
  /** `OK`, or why it failed; absent while it is under way. */
  readonly code?: ReasonCode | 'OK';
  /** Name of the container in the pod, for the stages of one. */
  readonly container?: string;
  /** Reference of the image, for `pulling`. */
  readonly image?: string;
  /** Of the attestation: what the key broker knows it by. */
  readonly correlationId?: string;
}

/** One refusal or failure of a pod. */
export interface RefusalRecord {
  readonly code: ReasonCode;
  readonly message: string;
  /** Milliseconds since 1970 of the host's clock. */
  readonly at: number;
  readonly stage?: StartStage;
  readonly container?: string;
  readonly correlationId?: string;
  /** How often the same was refused, this one included. */
  readonly count: number;
}

/** Which pod a sandbox is of; empty texts where the shim did not say. */
export interface PodIdentity {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
}

/** One pod VM, from the request for it until some time after its end. */
export interface SandboxStatus {
  readonly sandboxId: string;
  readonly pod: PodIdentity;
  /** `failed`: the VM could not be started, and nothing of it is left. */
  readonly state: 'created' | 'starting' | 'running' | 'failed' | 'ended';
  readonly createdAt: number;
  readonly endedAt?: number;
  readonly vm: {
    readonly name: string;
    readonly vcpus: number;
    readonly memoryMiB: number;
    /** The provider's own name of it, for a local hypervisor its process id. */
    readonly instance?: string;
    /** Digest of the whole image, and the root hash that its measured command line carries. */
    readonly image?: { readonly name: string; readonly digest: string; readonly rootHash: string };
  };
  readonly stages: readonly StageRecord[];
  /** Of the newest attestation, also of a refused one. */
  readonly correlationId?: string;
  /** Each other refusal by its code, container and message, in the order in which they last came; the newest 20. */
  readonly refusals?: readonly RefusalRecord[];
  /** The newest of them. */
  readonly refusal?: RefusalRecord;
}

/** The answer of `GET /v1/sandboxes`. */
export interface SandboxList {
  readonly sandboxes: readonly SandboxStatus[];
}

/** Whether a text is the code of a stage's end. */
export function isOutcome(text: unknown): text is ReasonCode | 'OK' {
  return typeof text === 'string' && (text === 'OK' || isReasonCode(text));
}

/** Whether a text is one of the stages. */
export function isStartStage(text: unknown): text is StartStage {
  return startStages.some((stage) => stage === text);
}

/** The form of a correlation id that is passed on: anything else of a guest or a broker is dropped. */
export function isCorrelationId(text: unknown): text is string {
  return typeof text === 'string' && /^[\w.:-]{1,128}$/.test(text);
}

/** The correlation id in the text of an error that crossed a process boundary; undefined where there is none. */
export function correlationIn(text: string): string | undefined {
  return /\(correlation ([\w.:-]{1,128})\)/.exec(text)?.[1];
}
