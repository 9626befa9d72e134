# Appraisal of Hygon's accelerators against reference values. Values of the trust vector are those of AR4SI: 2 and 3
# affirm, 33 does not. That the report chains to Hygon's root and is bound to the session, the verifier has seen to.
package policy

import rego.v1

default executables := 33

trust_claims := {
	"executables": executables,
	"hardware": 2,
	"configuration": 2,
	"file-system": 0,
	"instance-identity": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

executables := 3 if input.hygondcu.body.measure in query_reference_value("dcu_measure")
