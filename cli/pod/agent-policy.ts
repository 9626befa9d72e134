/** What one pod may do inside its machine; everything else the guest refuses. */
export interface AgentPolicyInput {
  /** The image by digest, exactly as containerd passes it on. */
  readonly image: string;
  /** The whole command: entry point and arguments. */
  readonly args: readonly string[];
  /** Whether the host may run further commands in the container and write to its input. */
  readonly allowExec: boolean;
}

/**
 * The agent policy of one pod (Rego, package `agent_policy`, one rule a request type as in Kata's agent). It names the
 * image and the command, so a host that swaps either is refused by the guest; requests without a rule are refused.
 */
export function agentPolicy(input: AgentPolicyInput): string {
  const exec = input.allowExec
    ? 'ExecProcessRequest := true\n\nWriteStreamRequest := true\n\nCloseStdinRequest := true\n'
    : '# The host may not run further commands here: ExecProcessRequest has no rule.\n';
  return `package agent_policy

import rego.v1

image := ${JSON.stringify(input.image)}

args := ${JSON.stringify(input.args)}

CreateSandboxRequest := true

DestroySandboxRequest := true

GuestDetailsRequest := true

GetOOMEventRequest := true

UpdateInterfaceRequest if input.interface.name != "lo"

UpdateRoutesRequest if {
	every route in input.routes.Routes {
		route.device != "lo"
	}
}

AddARPNeighborsRequest := true

CopyFileRequest if startswith(input.path, "/run/kata-containers/shared/containers/")

# The sandbox container runs nothing of the host's choice.
CreateContainerRequest if input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"

CreateContainerRequest if {
	input.OCI.Annotations["io.kubernetes.cri.container-type"] == "container"
	input.OCI.Process.Args == args
	some storage in input.storages
	storage.driver == "image_guest_pull"
	storage.source == image
}

StartContainerRequest := true

SignalProcessRequest := true

WaitProcessRequest := true

RemoveContainerRequest := true

StatsContainerRequest := true

TtyWinResizeRequest := true

ReadStreamRequest := true

${exec}`;
}
