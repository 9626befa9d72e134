/** What one container of a pod may be. */
export interface ContainerPolicy {
  /** The image by digest, exactly as containerd passes it on. */
  readonly image: string;
  /** The whole command: entry point and arguments. */
  readonly args: readonly string[];
  /** Variables as `NAME=value`, those of the image included; what Kubernetes adds is allowed. Without it, any. */
  readonly environment?: readonly string[];
}

/** What one pod may do inside its machine; everything else the guest refuses. */
export interface AgentPolicyInput {
  /** Init containers and sidecars too; in any order, any number of times (restarts). */
  readonly containers: readonly ContainerPolicy[];
  /** Commands the host may run in the containers: those of exec probes and lifecycle hooks. */
  readonly commands?: readonly (readonly string[])[];
  /** Whether the host may run any command in the containers and write to their input. */
  readonly allowExec: boolean;
}

/**
 * The agent policy of one pod (Rego, package `agent_policy`, one rule a request type as in Kata's agent). It names the
 * image and the command, so a host that swaps either is refused by the guest; requests without a rule are refused.
 */
export function agentPolicy(input: AgentPolicyInput): string {
  return `package agent_policy

import rego.v1

containers := ${JSON.stringify(input.containers, null, '\t')}

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
	some container in containers
	input.OCI.Process.Args == container.args
	every variable in input.OCI.Process.Env {
		allowed_variable(container, variable)
	}
	some storage in input.storages
	storage.driver == "image_guest_pull"
	storage.source == container.image

	# No disks of the host.
	input.devices == []
	every other in input.storages {
		other.driver in {"image_guest_pull", "ephemeral", "local"}
	}
}

allowed_variable(container, _) if not container.environment

allowed_variable(container, variable) if variable in container.environment

allowed_variable(_, variable) if startswith(variable, "HOSTNAME=")

# Addresses of Services, as the kubelet writes them.
allowed_variable(_, variable) if {
	regex.match("^[A-Z][A-Z0-9_]*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)=[a-z0-9.:/]*$", variable)
}

StartContainerRequest := true

SignalProcessRequest := true

WaitProcessRequest := true

RemoveContainerRequest := true

StatsContainerRequest := true

TtyWinResizeRequest := true

ReadStreamRequest := true

UpdateContainerRequest := true

GetDiagnosticDataRequest if input.log_type == "termination_log"

${execRules(input)}`;
}

function execRules({ allowExec, commands = [] }: AgentPolicyInput): string {
  if (allowExec) return 'ExecProcessRequest := true\n\nWriteStreamRequest := true\n\nCloseStdinRequest := true\n';
  if (commands.length === 0) return '# The host may not run further commands here: ExecProcessRequest has no rule.\n';
  return `commands := ${JSON.stringify(commands, null, '\t')}

ExecProcessRequest if input.process.Args in commands
`;
}
