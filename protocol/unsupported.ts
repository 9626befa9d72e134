/**
 * What Kubernetes lets a pod ask for and a pod in a machine of its own cannot have. One wording, wherever it is refused:
 * by the admission webhook, the policy generator, the shim or the guest.
 */
export const unsupportedFeatures = {
  hostNetwork: 'the network of the node (hostNetwork) is not supported',
  hostPID: 'the processes of the node (hostPID) are not supported',
  hostIPC: 'the shared memory of the node (hostIPC) is not supported',
  shareProcessNamespace: 'a process namespace shared by the pod is not supported',
  privileged: 'a privileged container is not supported',
  allCapabilities: 'all capabilities (ALL) are not supported',
  unmaskedProc: 'an unmasked /proc (procMount) is not supported',
  hostPort: 'a port of the node (hostPort) is not supported',
  hostPath: 'a folder of the node (hostPath) is not supported',
  mountPropagation: 'mount propagation to or from the node is not supported',
  userNamespace: 'a user namespace of the node (hostUsers: false) is not supported',
  seccompProfile: 'a seccomp profile other than RuntimeDefault, which every container has, is not supported',
  appArmorProfile: 'an AppArmor profile of the node (Localhost) is not supported',
  windows: 'Windows containers are not supported',
} as const satisfies Record<string, string>;

/** One of the features that are refused everywhere. */
export type UnsupportedFeature = keyof typeof unsupportedFeatures;
