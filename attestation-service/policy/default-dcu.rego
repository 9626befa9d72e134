# Appraisal of Hygon DCUs. Trustee has no policy for them. The verifier has compared signature, chain and session; what the
# device runs must be known.
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

executables := 3 if input.hygondcu.body.measure in query_reference_value("dcu_measure")

hardware := 2 if input.hygondcu.body.version in query_reference_value("dcu_version")

configuration := 2 if input.hygondcu.body.chip_id in query_reference_value("dcu_chip_id")
