# Appraisal of NVIDIA BlueField DPUs. Trustee has no policy for them. All firmware layers are in one digest.
package policy

import rego.v1

default executables := 33

default hardware := 97

default configuration := 36

trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
	"file-system": 0,
	"instance-identity": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

dpu := object.get(input, "nvidia-dpu", object.get(input, "nvidiadpu", {}))

executables := 3 if dpu.accumulated_fwid in query_reference_value("dpu_accumulated_fwid")

hardware := 2 if dpu.device_class in query_reference_value("dpu_device_class")

configuration := 2 if dpu.firmware_layers_count in query_reference_value("dpu_firmware_layers_count")
