# Appraisal of CPU TEEs against reference values. Values of the trust vector are those of AR4SI: 2 and 3 affirm, 33, 36
# and 97 do not. Reference value names and conditions of sample, snp, tdx, se and the az-*-vtpm types are upstream's.
#
# A component without a reference value never affirms, and neither does a simulated TPM or a machine with a debug switch.
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

##### sample

executables := 3 if {
	input.sample
	input.sample.launch_digest in query_reference_value("launch_digest")
}

hardware := 2 if {
	input.sample
	input.sample.svn in query_reference_value("svn")
	input.sample.platform_version.major == query_reference_value("major_version")
	minimum := query_reference_value("minimum_minor_version")
	is_number(minimum)
	input.sample.platform_version.minor >= minimum
}

configuration := 2 if {
	input.sample
	input.sample.debug == false
}

##### tpm

executables := 3 if {
	input.tpm
	tpm_executables
}

hardware := 2 if {
	input.tpm
	tpm_hardware
	input.tpm.simulated == false
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

# A machine that was cloned from a template shares the seeds of its TPM with the other clones.
tpm_not_cloned if input.tpm.template == false

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

# Upstream registers one value for each of these, not a list. Both are accepted.
accepted(actual, reference) if actual == reference

accepted(actual, reference) if {
	is_array(reference)
	actual in reference
}

snp_platform_known if {
	accepted(input.snp.platform_smt_enabled, query_reference_value("snp_smt_enabled"))
	accepted(input.snp.platform_tsme_enabled, query_reference_value("snp_tsme_enabled"))
	accepted(input.snp.policy_abi_major, query_reference_value("snp_guest_abi_major"))
	accepted(input.snp.policy_abi_minor, query_reference_value("snp_guest_abi_minor"))
	accepted(input.snp.policy_single_socket, query_reference_value("snp_single_socket"))
	accepted(input.snp.policy_smt_allowed, query_reference_value("snp_smt_allowed"))
}

configuration := 2 if {
	input.snp
	snp_locked_down
	snp_platform_known
} else := 3 if {
	input.snp
	snp_locked_down
}

##### az-snp-vtpm

executables := 3 if {
	input["az-snp-vtpm"]
	input["az-snp-vtpm"].measurement in query_reference_value("measurement")
	input["az-snp-vtpm"].tpm.pcr11 in query_reference_value("snp_pcr11")
}

hardware := 2 if {
	input["az-snp-vtpm"]
	input["az-snp-vtpm"].reported_tcb_bootloader in query_reference_value("tcb_bootloader")
	input["az-snp-vtpm"].reported_tcb_microcode in query_reference_value("tcb_microcode")
	input["az-snp-vtpm"].reported_tcb_snp in query_reference_value("tcb_snp")
	input["az-snp-vtpm"].reported_tcb_tee in query_reference_value("tcb_tee")
}

configuration := 2 if {
	input["az-snp-vtpm"]
	input["az-snp-vtpm"].platform_smt_enabled in query_reference_value("smt_enabled")
	input["az-snp-vtpm"].platform_tsme_enabled in query_reference_value("tsme_enabled")
	input["az-snp-vtpm"].policy_abi_major in query_reference_value("abi_major")
	input["az-snp-vtpm"].policy_abi_minor in query_reference_value("abi_minor")
	input["az-snp-vtpm"].policy_single_socket in query_reference_value("single_socket")
	input["az-snp-vtpm"].policy_smt_allowed in query_reference_value("smt_allowed")
}

##### tdx and az-tdx-vtpm

tdx_quote(tee) if {
	tee.quote.header.tee_type == "81000000"
	tee.quote.header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"
	tee.quote.body.mr_td in query_reference_value("mr_td")
	tee.tcb_status == "UpToDate"
	tee.collateral_expiration_status == "0"
}

tdx_registers if {
	input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
	input.tdx.quote.body.rtmr_2 in query_reference_value("rtmr_2")
}

tdx_log_kernel if {
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"
	"File(kernel)" in event.details.device_paths
	some digest in event.digests
	accepted(digest.digest, query_reference_value("tdvfkernel"))
}

tdx_log_parameters if {
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EVENT_TAG"
	event.details.string == "LOADED_IMAGE::LoadOptions"
	some digest in event.digests
	accepted(digest.digest, query_reference_value("tdvfkernelparams"))
}

executables := 3 if {
	input.tdx
	tdx_registers
	tdx_log_kernel
	tdx_log_parameters
} else := 4 if {
	input.tdx
	tdx_registers
}

hardware := 2 if {
	input.tdx
	tdx_quote(input.tdx)
}

configuration := 2 if {
	input.tdx
	input.tdx.td_attributes.debug == false
	input.tdx.quote.body.xfam in query_reference_value("xfam")
}

executables := 3 if {
	input["az-tdx-vtpm"]
	input["az-tdx-vtpm"].tpm.pcr11 in query_reference_value("tdx_pcr11")
}

hardware := 2 if {
	input["az-tdx-vtpm"]
	tdx_quote(input["az-tdx-vtpm"])
}

configuration := 2 if {
	input["az-tdx-vtpm"]
	input["az-tdx-vtpm"].td_attributes.debug == false
	input["az-tdx-vtpm"].quote.body.xfam in query_reference_value("xfam")
}

##### sgx: the enclave itself, or its signer with product and version

executables := 3 if {
	input.sgx
	sgx_enclave_known
}

sgx_enclave_known if input.sgx.body.mr_enclave in query_reference_value("sgx_mr_enclave")

sgx_enclave_known if {
	input.sgx.body.mr_signer in query_reference_value("sgx_mr_signer")
	input.sgx.body.isv_prod_id in query_reference_value("sgx_isv_prod_id")
	input.sgx.body.isv_svn in query_reference_value("sgx_isv_svn")
}

hardware := 2 if {
	input.sgx
	input.sgx.header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"
	input.sgx.tcb_status == "UpToDate"
	input.sgx.collateral_expiration_status == "0"
}

# Bit 1 of the attributes, which come in the order of the wire, is DEBUG.
configuration := 2 if {
	input.sgx
	regex.match("^[0-9a-f][014589cd]", input.sgx.body["attributes.flags"])
}

##### cca, whose platform the verifier holds against its stores or has appraised by a service, and refuses where it is unknown

executables := 3 if {
	input.cca
	cca_realm_known
}

cca_realm_known if input.cca.realm["cca-realm-initial-measurement"] in query_reference_value("cca_realm_initial_measurement")

cca_realm_known if input.cca.sealpod.realm_appraisal in {"approved-boot", "approved-runtime"}

# Of a service: 2 and 3 are approved at run time and at boot.
cca_realm_known if input.cca.sealpod.realm_trust_vector.executables in {2, 3}

hardware := 2 if {
	input.cca
	input.cca.sealpod.appraised_by
}

configuration := 2 if {
	input.cca
	input.cca.sealpod.platform_lifecycle == "secured"
}

##### csv

executables := 3 if {
	input.csv
	input.csv.measure in query_reference_value("csv_measure")
}

# The first version of reports does not tell the version of the firmware.
hardware := 2 if {
	input.csv
	input.csv.version == "1"
} else := 2 if {
	input.csv
	input.csv.build in query_reference_value("csv_build")
}

configuration := 2 if {
	input.csv
	input.csv.policy.nodbg == 1
	input.csv.policy.es == 1
}

##### se, of which the verifier refuses every image that is not configured and every machine without a verified host key

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

##### aws-nitro

executables := 3 if {
	input["aws-nitro"]
	input["aws-nitro"].pcr0 in query_reference_value("nitro_pcr0")
	input["aws-nitro"].pcr2 in query_reference_value("nitro_pcr2")
}

hardware := 2 if {
	input["aws-nitro"]
	input["aws-nitro"].debug == false
}

configuration := 2 if {
	input["aws-nitro"]
	input["aws-nitro"].debug == false
	input["aws-nitro"].pcr1 in query_reference_value("nitro_pcr1")
	nitro_initdata
}

nitro_initdata if {
	input["aws-nitro"]
	not input.init_data
}

nitro_initdata if {
	input["aws-nitro"]
	input.init_data in query_reference_value("nitro_init_data")
}
