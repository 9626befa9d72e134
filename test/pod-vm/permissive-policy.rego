package agent_policy

default ExecProcessRequest := true
