# What Trustee's own attestation service says of a protected PCIe topology: its verifier makes this submodule only where the
# topology is complete, so that it affirms. Devices have submodules of their own. Available by name, selected by nobody.
package policy

import rego.v1

trust_claims := {
	"executables": 0,
	"hardware": 0,
	"configuration": 2,
	"file-system": 0,
	"instance-identity": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}
