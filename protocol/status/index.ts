export {
  type GuestDenial,
  type GuestLine,
  type GuestMilestone,
  type GuestStage,
  guestMessages,
  parseGuestLine,
} from './guest-line.ts';
export {
  correlationIn,
  isCorrelationId,
  isStartStage,
  type PodIdentity,
  type RefusalRecord,
  type SandboxList,
  type SandboxStatus,
  type StageRecord,
  type StartStage,
  startStages,
} from './start.ts';
