# Appraisal of a protected PCIe topology: eight GPUs and four switches that name each other. Each device has a submodule and
# a policy of its own.
package policy

import rego.v1

default configuration := 36

configuration := 2 if {
	input.nvidia.gpu_count == 8
	input.nvidia.switch_count == 4
}

trust_claims := {
	"executables": 0,
	"hardware": 0,
	"configuration": configuration,
	"file-system": 0,
	"instance-identity": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}
