import { SealpodError } from '@sealpod/protocol/errors';
import { ContainerState, PodSandboxState } from '@sealpod/protocol/gen/cri/runtime_v1_pb';
import type { CriClient } from '@sealpod/runtimeclass/cri';
import { removePod } from './run.ts';

/** One pod of the environment, as the container runtime knows it. */
export interface PodDescription {
  readonly name: string;
  readonly sandboxId: string;
  readonly state: 'ready' | 'not ready';
  readonly createdAt: string;
  readonly container?: { readonly id: string; readonly state: string; readonly image: string };
}

const containerStates: Readonly<Record<number, string>> = {
  [ContainerState.CONTAINER_CREATED]: 'created',
  [ContainerState.CONTAINER_RUNNING]: 'running',
  [ContainerState.CONTAINER_EXITED]: 'exited',
};

/** The pods that `sealpod run` started, newest first. */
export async function listPods(cri: CriClient): Promise<PodDescription[]> {
  const { items } = await cri.runtime.listPodSandbox({});
  const { containers } = await cri.runtime.listContainers({});
  return items
    .map((sandbox): PodDescription => {
      const container = containers.find((candidate) => candidate.podSandboxId === sandbox.id);
      return {
        name: sandbox.metadata?.name ?? '',
        sandboxId: sandbox.id,
        state: sandbox.state === PodSandboxState.SANDBOX_READY ? 'ready' : 'not ready',
        createdAt: new Date(Number(sandbox.createdAt / 1_000_000n)).toISOString(),
        ...(container === undefined
          ? {}
          : {
              container: {
                id: container.id,
                state: containerStates[container.state] ?? 'unknown',
                image: container.image?.userSpecifiedImage || container.image?.image || '',
              },
            }),
      };
    })
    .sort((one, other) => other.createdAt.localeCompare(one.createdAt));
}

/** The newest pod called `name`. @throws SealpodError NOT_FOUND naming the pods there are */
export async function findPod(cri: CriClient, name: string): Promise<PodDescription> {
  const pods = await listPods(cri);
  const pod = pods.find((candidate) => candidate.name === name);
  if (pod !== undefined) return pod;
  throw new SealpodError('NOT_FOUND', `there is no pod ${name}`, {
    expected: pods.length === 0 ? 'no pod runs' : `one of ${pods.map((candidate) => candidate.name).join(', ')}`,
    actual: name,
  });
}

/** As `findPod`, for a pod whose container was created. */
export async function findContainer(cri: CriClient, name: string): Promise<string> {
  const pod = await findPod(cri, name);
  if (pod.container !== undefined) return pod.container.id;
  throw new SealpodError('NOT_FOUND', `pod ${name} has no container`, { fix: 'see `sealpod status`' });
}

/** Stops and removes every pod called `name`. @throws SealpodError NOT_FOUND where there is none */
export async function removePodNamed(cri: CriClient, name: string): Promise<void> {
  await findPod(cri, name);
  for (const pod of await listPods(cri)) if (pod.name === name) await removePod(cri, pod.sandboxId);
}
