# For development machines without TEE hardware: TPM evidence is appraised as in the default policy, and the TPM must be
# a simulated one. Its keys lie in a file of the host, so the host can read every secret that this policy releases.
# Never store it where secrets matter.
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

##### tpm

executables := 3 if {
	input.tpm
	tpm_executables
}

hardware := 2 if {
	input.tpm
	tpm_hardware
	input.tpm.simulated == true
}

configuration := 2 if {
	input.tpm
	input.tpm.debug == false
	input.tpm.components.initdata in query_reference_value("tpm_initdata")
}

# Proved by credential activation, or enrolled by the operator. Never a key that vouches for itself (`self-asserted`).
tpm_key_trusted if input.tpm.ak_trust == "activated"

tpm_key_trusted if {
	input.tpm.ak_trust == "enrolled"
	input.tpm.ak_public in query_reference_value("trusted_aks")
}

# Measured by component, with an event log in which every event is accounted for.
tpm_executables if {
	tpm_key_trusted
	tpm_not_cloned
	input.tpm.components.loader in query_reference_value("tpm_loader")
	input.tpm.components.kernel in query_reference_value("tpm_kernel")
	input.tpm.components.command_line in query_reference_value("tpm_command_line")
	input.tpm.components.initrd in query_reference_value("tpm_initrd")
	input.tpm.components.root_hash in query_reference_value("tpm_root_hash")
}

# A machine that was cloned from a template shares the seeds of its TPM with the other clones: only where the operator names
# its command line once more.
tpm_not_cloned if input.tpm.template == false

tpm_not_cloned if input.tpm.components.command_line in query_reference_value("tpm_template_command_line")

# Upstream's plain evidence: registers only, with an attestation key that the operator enrolled. Without the loader, which
# PCR 4 holds, PCR 11 proves nothing: another loader can extend it with the values of the genuine one.
tpm_executables if {
	input.tpm.ak_trust == "enrolled"
	tpm_key_trusted
	input.tpm.pcr04 in query_reference_value("tpm_pcr04")
	input.tpm.pcr11 in query_reference_value("tpm_pcr11")
}

tpm_hardware if {
	tpm_key_trusted
	input.tpm.debug == false
	input.tpm.components.firmware in query_reference_value("tpm_firmware")
	input.tpm.components.firmware_configuration in query_reference_value("tpm_firmware_configuration")
}

##### What the owner put into the initdata, for policies of the key broker

extensions := [{
	"name": "ear.trustee.identifiers",
	"key": -18,
	"value": {"validated": object.union(container_images, container_uids)},
}]

containers := object.get(input, ["init_data_claims", "agent_policy_claims", "containers"], [])

images := [image | some container in containers; image := container.OCI.Annotations["io.kubernetes.cri.image-name"]]

uids := [uid | some container in containers; uid := container.OCI.Process.User.UID]

default container_images := {}

container_images := {"container_images": images} if count(images) > 0

default container_uids := {}

container_uids := {"container_uids": uids} if count(uids) > 0
