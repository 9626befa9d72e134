import type { ReasonCode } from '../reason-codes.ts';
import { isCorrelationId, isOutcome, isStartStage, type StartStage } from './start.ts';

/** A stage that the guest began or ended, as it stands in one line of its console. */
export interface GuestStage {
  readonly kind: 'stage';
  readonly stage: StartStage;
  /** Milliseconds since the guest's kernel began, when it was begun. */
  readonly begunAt: number;
  /** Absent while it is under way. */
  readonly durationMs?: number;
  readonly code?: ReasonCode | 'OK';
  readonly message?: string;
  readonly correlationId?: string;
  readonly container?: string;
  readonly image?: string;
}

/** A request that the guest's agent policy refused. */
export interface GuestDenial {
  readonly kind: 'denial';
  /** Name of the message, e.g. `ExecProcessRequest`. */
  readonly request: string;
  readonly reason: string;
  readonly at: number;
}

/** Points of the guest's boot, in milliseconds since its kernel began. */
export interface GuestMilestone {
  readonly kind: 'milestone';
  readonly name: 'init' | 'agent' | 'serving';
  readonly at: number;
}

export type GuestLine = GuestStage | GuestDenial | GuestMilestone;

/** Messages of the console lines that are read here; the guest writes them. */
export const guestMessages = {
  starting: 'starting',
  serving: 'serving',
  stage: 'stage',
  denied: 'request refused by the agent policy',
} as const;

const maxTextCharacters = 1024;
const maxIdCharacters = 512;
const initLine = /^sealpod: init after (\d{1,9}(?:\.\d{1,6})?) s of the kernel$/;

/**
 * Reads one line of a guest's console; undefined for every line that is not about a start. The console is the guest's
 * and passes through the hypervisor: nothing in it is proved, and nothing may be decided by it.
 */
export function parseGuestLine(line: string): GuestLine | undefined {
  const seconds = initLine.exec(line.trim())?.[1];
  if (seconds !== undefined) return { kind: 'milestone', name: 'init', at: Math.round(Number(seconds) * 1000) };
  // The kernel writes to the same console and may have left the beginning of the line.
  const begin = line.indexOf('{"time":');
  if (begin < 0) return undefined;
  const entry = objectOf(line.slice(begin).trim());
  const at = milliseconds(entry?.['uptime']);
  if (entry === undefined || at === undefined) return undefined;
  switch (entry['message']) {
    case guestMessages.starting:
      return { kind: 'milestone', name: 'agent', at };
    case guestMessages.serving:
      return { kind: 'milestone', name: 'serving', at };
    case guestMessages.denied:
      return {
        kind: 'denial',
        request: text(entry['request'], 128) ?? '',
        reason: text(entry['reason'], maxTextCharacters) ?? '',
        at,
      };
    case guestMessages.stage:
      return stageOf(entry, at);
    default:
      return undefined;
  }
}

function stageOf(entry: Record<string, unknown>, at: number): GuestStage | undefined {
  const { stage, code, correlation } = entry;
  if (!isStartStage(stage)) return undefined;
  const durationMs = milliseconds(entry['ms']);
  const container = text(entry['container'], maxIdCharacters);
  const image = text(entry['image'], maxIdCharacters);
  const message = text(entry['error'], maxTextCharacters);
  return {
    kind: 'stage',
    stage,
    begunAt: Math.max(0, at - (durationMs ?? 0)),
    ...(durationMs === undefined ? {} : { durationMs }),
    ...(isOutcome(code) ? { code } : {}),
    ...(message === undefined ? {} : { message }),
    ...(isCorrelationId(correlation) ? { correlationId: correlation } : {}),
    ...(container === undefined ? {} : { container }),
    ...(image === undefined ? {} : { image }),
  };
}

function objectOf(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    // Cut off, or mixed with a line of the kernel.
    return undefined;
  }
}

function milliseconds(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 && value < 1e12 ? value : undefined;
}

/** One line of printable text. */
function text(value: unknown, limit: number): string | undefined {
  if (typeof value !== 'string') return undefined;
  return value.replace(/[^\x20-\x7e]+/g, ' ').slice(0, limit);
}
