# What Trustee's own attestation service says of CPU TEEs, for policies and reference values that were made for it. Available
# by name, selected by nobody: it affirms the hardware of any TPM and anything of Secure Execution without a reference value.
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

##### sample: each rule begins with its TEE, so that for another the engine asks for no reference value

executables := 3 if {
	input.sample
	input.sample.launch_digest in query_reference_value("launch_digest")
}

hardware := 2 if {
	input.sample
	input.sample.svn in query_reference_value("svn")
	input.sample.platform_version.major == query_reference_value("major_version")
	input.sample.platform_version.minor >= query_reference_value("minimum_minor_version")
}

configuration := 2 if input.sample.debug == false

##### snp

executables := 3 if {
	input.snp
	input.snp.measurement in query_reference_value("snp_launch_measurement")
}

hardware := 2 if {
	input.snp
	input.snp.reported_tcb_bootloader in query_reference_value("snp_bootloader")
	input.snp.reported_tcb_microcode in query_reference_value("snp_microcode")
	input.snp.reported_tcb_snp in query_reference_value("snp_snp_svn")
	input.snp.reported_tcb_tee in query_reference_value("snp_tee_svn")
}

snp_locked_down if {
	input.snp.policy_debug_allowed == false
	input.snp.policy_migrate_ma == false
}

configuration := 2 if {
	input.snp
	snp_locked_down
	input.snp.platform_smt_enabled == query_reference_value("snp_smt_enabled")
	input.snp.platform_tsme_enabled == query_reference_value("snp_tsme_enabled")
	input.snp.policy_abi_major == query_reference_value("snp_guest_abi_major")
	input.snp.policy_abi_minor == query_reference_value("snp_guest_abi_minor")
	input.snp.policy_single_socket == query_reference_value("snp_single_socket")
	input.snp.policy_smt_allowed == query_reference_value("snp_smt_allowed")
} else := 3 if snp_locked_down

##### az-snp-vtpm

az_snp := input["az-snp-vtpm"]

executables := 3 if {
	az_snp
	az_snp.measurement in query_reference_value("measurement")
	az_snp.tpm.pcr11 in query_reference_value("snp_pcr11")
}

hardware := 2 if {
	az_snp
	az_snp.reported_tcb_bootloader in query_reference_value("tcb_bootloader")
	az_snp.reported_tcb_microcode in query_reference_value("tcb_microcode")
	az_snp.reported_tcb_snp in query_reference_value("tcb_snp")
	az_snp.reported_tcb_tee in query_reference_value("tcb_tee")
}

configuration := 2 if {
	az_snp
	az_snp.platform_smt_enabled in query_reference_value("smt_enabled")
	az_snp.platform_tsme_enabled in query_reference_value("tsme_enabled")
	az_snp.policy_abi_major in query_reference_value("abi_major")
	az_snp.policy_abi_minor in query_reference_value("abi_minor")
	az_snp.policy_single_socket in query_reference_value("single_socket")
	az_snp.policy_smt_allowed in query_reference_value("smt_allowed")
}

##### tdx and az-tdx-vtpm

az_tdx := input["az-tdx-vtpm"]

# A quote of Intel's quoting enclave over a trust domain whose platform is current.
intel_quote(tee) if {
	tee.quote
	tee.quote.header.tee_type == "81000000"
	tee.quote.header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"
	tee.quote.body.mr_td in query_reference_value("mr_td")
	tee.tcb_status == "UpToDate"
}

tdx_registers if {
	input.tdx
	input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
	input.tdx.quote.body.rtmr_2 in query_reference_value("rtmr_2")
}

tdx_kernel if {
	input.tdx
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"
	"File(kernel)" in event.details.device_paths
	some measured in event.digests
	measured.digest == query_reference_value("tdvfkernel")
}

tdx_command_line if {
	input.tdx
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EVENT_TAG"
	event.details.string == "LOADED_IMAGE::LoadOptions"
	some measured in event.digests
	measured.digest == query_reference_value("tdvfkernelparams")
}

executables := 3 if {
	tdx_registers
	tdx_kernel
	tdx_command_line
} else := 4 if tdx_registers

executables := 3 if {
	az_tdx
	az_tdx.tpm.pcr11 in query_reference_value("tdx_pcr11")
}

hardware := 2 if {
	intel_quote(input.tdx)
	input.tdx.collateral_expiration_status == "0"
}

hardware := 2 if intel_quote(az_tdx)

configuration := 2 if {
	input.tdx
	input.tdx.td_attributes.debug == false
	input.tdx.quote.body.xfam in query_reference_value("xfam")
}

configuration := 2 if {
	az_tdx
	az_tdx.quote.body.xfam in query_reference_value("xfam")
}

##### tpm

executables := 3 if {
	input.tpm
	input.tpm.pcr11 in query_reference_value("tpm_pcr11")
	input.tpm.ak_public in query_reference_value("trusted_aks")
}

hardware := 2 if input.tpm

configuration := 0 if input.tpm

##### se: its verifier has compared everything that there is

executables := 3 if input.se

hardware := 2 if input.se

configuration := 2 if input.se

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
