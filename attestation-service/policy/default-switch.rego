# Appraisal of NVIDIA switches by what NVIDIA's remote attestation service told of them, and by versions that are known: a device
# with a version without reference value never affirms.
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

certificates_valid(name) if {
	chain := input.nvidia[name]
	not_revoked(chain)
	chain["x-nvidia-cert-status"] == "valid"
}

not_revoked(chain) if chain["x-nvidia-cert-ocsp-status"] == "good"

# The local verifier held the chains against NVIDIA's revocation lists instead.
not_revoked(chain) if {
	chain["x-nvidia-cert-ocsp-status"] == null
	input.nvidia.sealpod.revocation_lists == "good"
}

all_hold(names) if {
	every name in names {
		input.nvidia[name] == true
	}
}

hardware := 2 if {
	certificates_valid("x-nvidia-switch-attestation-report-cert-chain")
	all_hold([
		"x-nvidia-switch-attestation-report-cert-chain-fwid-match",
		"x-nvidia-switch-attestation-report-parsed",
		"x-nvidia-switch-attestation-report-signature-verified",
		"x-nvidia-switch-arch-check",
	])
}

no_debug if {
	input.nvidia.secboot == true
	input.nvidia.dbgstat == "disabled"
}

configuration := 2 if {
	no_debug
	input.nvidia["x-nvidia-switch-bios-version"] in query_reference_value("allowed_switch_bios_versions")
}

executables := 3 if {
	certificates_valid("x-nvidia-switch-bios-rim-cert-chain")
	all_hold([
		"x-nvidia-switch-bios-rim-fetched",
		"x-nvidia-switch-bios-rim-measurements-available",
		"x-nvidia-switch-bios-rim-schema-validated",
		"x-nvidia-switch-bios-rim-signature-verified",
		"x-nvidia-switch-bios-rim-version-match",
	])
	input.nvidia.measres == "success"
}
