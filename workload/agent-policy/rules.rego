package agent_policy

# The agent policy of one pod. What the pod may do is `policy_data` at the end; these rules are the same for every pod.
# Each rule answers one request type of Kata's agent API; a request type without a rule is refused. A rule compares what is
# asked for with what the pod says, field by field: facts that cannot be read make the whole rule undefined, which refuses.

import rego.v1

# ---- Refusals tell rule, field, expected and actual value, and the nearest that is allowed.

shown(value) := value if {
	is_string(value)
	count(value) <= 300
}

shown(value) := concat("", [substring(value, 0, 300), "…"]) if {
	is_string(value)
	count(value) > 300
}

problem(field, expected, actual) := {
	"field": field,
	"expected": shown(json.marshal(expected)),
	"actual": shown(json.marshal(actual)),
}

told(rule, nearest, problems) if {
	lines := [line |
		some found in problems
		line := sprintf("%s: %s: expected %s, actual %s%s", [rule, found.field, found.expected, found.actual, nearest])
	]
	print(concat("\n", lines))
}

# true without problems; otherwise false, and told.
verdict(_, problems) := true if count(problems) == 0

verdict(rule, problems) := false if {
	count(problems) > 0
	told(rule, "", problems)
}

# Problems of facts: field → [expected, actual].
unequal(facts) := {found |
	some field, pair in facts
	pair[0] != pair[1]
	found := problem(field, pair[0], pair[1])
}

# Problems of values that have to match a regular expression: field → [expression, actual].
unmatched(facts) := {found |
	some field, pair in facts
	not matches(pair[0], pair[1])
	found := problem(field, pair[0], pair[1])
}

matches(pattern, value) if {
	is_string(value)
	regex.match(pattern, value)
}

# A value of the pod: exactly so, or by a pattern in which $(name), $(namespace) and $(uid) are those of this pod.
fits(wanted, value) if wanted.equals == value

fits(wanted, value) if matches(bound(wanted.pattern), value)

quoted(text) := replace(text, ".", "\\.")

bound(pattern) := replace(
	replace(
		replace(pattern, "$(name)", quoted(data.pstate.sandbox.name)),
		"$(namespace)",
		quoted(data.pstate.sandbox.namespace),
	),
	"$(uid)",
	data.pstate.sandbox.uid,
)

shared_folder := "/run/kata-containers/shared/containers"

sandbox_folder := "/run/kata-containers/sandbox"

id_pattern := `^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`

# ---- Sandbox

CreateSandboxRequest := verdict("CreateSandboxRequest", sandbox_problems)

sandbox_problems := unequal(sandbox_facts) | unmatched(sandbox_patterns) | dns_problems | sandbox_storage_problems

sandbox_facts := {
	"guest_hook_path": ["", input.guest_hook_path],
	"kernel_modules": [[], input.kernel_modules],
	"sandbox_pidns": [false, input.sandbox_pidns],
	"storages": ["array", type_name(input.storages)],
	"dns": ["array", type_name(input.dns)],
}

sandbox_patterns := {
	"hostname": [policy_data.pod.hostname, input.hostname],
	"sandbox_id": [id_pattern, input.sandbox_id],
}

dns_problems := {problem("dns", dns_pattern, line) |
	some line in input.dns
	not matches(dns_pattern, line)
}

dns_pattern := `^(nameserver|search|options|domain|sortlist)\s+[A-Za-z0-9_.:%/ -]*$`

shared_memory_options := {"noexec", "nosuid", "nodev", "mode=1777"}

sandbox_storage_problems := {problem("storages", "the shared memory of the pod and nothing else", storage) |
	some storage in input.storages
	not is_shared_memory(storage)
}

is_shared_memory(storage) if {
	[storage.driver, storage.source, storage.fstype, storage.mount_point] == [
		"ephemeral", "shm", "tmpfs", concat("/", [sandbox_folder, "shm"]),
	]
	storage.driver_options == []
	storage.fs_group == null
	storage.shared == false
	every option in storage.options {
		shared_memory_option(option)
	}
}

shared_memory_option(option) if option in shared_memory_options

shared_memory_option(option) if regex.match(`^size=[0-9]{1,15}$`, option)

# ---- Containers: the sandbox's own first, of which nothing of the host's choice is ever run.

annotations := input.OCI.Annotations

is_sandbox if annotations["io.kubernetes.cri.container-type"] == "sandbox"

default CreateContainerRequest := {"allowed": false, "ops": []}

CreateContainerRequest := {"allowed": true, "ops": create_operations} if count(create_problems) == 0

CreateContainerRequest := {"allowed": false, "ops": []} if {
	count(create_problems) > 0
	told("CreateContainerRequest", nearest, create_problems)
}

create_problems := common_problems | pause_problems if is_sandbox

create_problems := common_problems | container_problems if {
	not is_sandbox
	wanted
}

create_problems := {problem("OCI.Annotations[io.kubernetes.cri.container-name]", names, actual)} if {
	not is_sandbox
	not wanted
	names := sort([name | some name, _ in policy_data.containers])
	actual := object.get(annotations, "io.kubernetes.cri.container-name", null)
}

default nearest := ""

nearest := sprintf("; nearest allowed: container \"%s\"", [wanted_name]) if {
	not is_sandbox
	wanted
}

wanted_name := annotations["io.kubernetes.cri.container-name"]

wanted := policy_data.containers[wanted_name]

create_operations := [{
	"op": "add", "path": "/pstate/sandbox",
	"value": {
		"id": input.container_id,
		"name": annotations["io.kubernetes.cri.sandbox-name"],
		"namespace": annotations["io.kubernetes.cri.sandbox-namespace"],
		"uid": object.get(annotations, "io.kubernetes.cri.sandbox-uid", ""),
	},
}] if is_sandbox

create_operations := [{"op": "add", "path": concat("", ["/pstate/container:", input.container_id]), "value": wanted_name}] if {
	not is_sandbox
}

# What holds for any container. Parts of the request that nothing here needs have to be empty.
common_problems := (unequal(common_facts) | unmatched(common_patterns)) | (annotation_problems | namespace_problems)

common_facts := {
	"string_user": [null, input.string_user],
	"devices": ["array", type_name(input.devices)],
	"shared_mounts": [[], input.shared_mounts],
	"stdin_port": [null, input.stdin_port],
	"stdout_port": [null, input.stdout_port],
	"stderr_port": [null, input.stderr_port],
	"sandbox_pidns": [false, input.sandbox_pidns],
	"container_id (used before)": [false, known(input.container_id)],
	"exec_id": [true, input.exec_id in {"", input.container_id}],
	"storages": ["array", type_name(input.storages)],
	"OCI.Hooks": [null, input.OCI.Hooks],
	"OCI.Solaris": [null, input.OCI.Solaris],
	"OCI.Windows": [null, input.OCI.Windows],
	"OCI.Mounts": ["array", type_name(input.OCI.Mounts)],
	"OCI.Annotations": ["object", type_name(input.OCI.Annotations)],
	"OCI.Root.Path": [root_folder, input.OCI.Root.Path],
	"OCI.Process": ["object", type_name(input.OCI.Process)],
	"OCI.Linux.UIDMappings": [[], input.OCI.Linux.UIDMappings],
	"OCI.Linux.GIDMappings": [[], input.OCI.Linux.GIDMappings],
	"OCI.Linux.Devices": ["array", type_name(input.OCI.Linux.Devices)],
	"OCI.Linux.Seccomp": [null, input.OCI.Linux.Seccomp],
	"OCI.Linux.IntelRdt": [null, input.OCI.Linux.IntelRdt],
	"OCI.Linux.MountLabel": ["", input.OCI.Linux.MountLabel],
	"OCI.Linux.RootfsPropagation": [true, input.OCI.Linux.RootfsPropagation in {"", "private", "rprivate", "slave", "rslave"}],
	"OCI.Linux.Resources.Devices": [[], input.OCI.Linux.Resources.Devices],
	"OCI.Linux.Resources.Pids": [null, input.OCI.Linux.Resources.Pids],
	"OCI.Linux.Resources.BlockIO": [null, input.OCI.Linux.Resources.BlockIO],
	"OCI.Linux.Resources.Network": [null, input.OCI.Linux.Resources.Network],
	"OCI.Linux.Resources.HugepageLimits": [[], input.OCI.Linux.Resources.HugepageLimits],
	"OCI.Linux.Namespaces": ["array", type_name(input.OCI.Linux.Namespaces)],
}

common_patterns := {
	"container_id": [id_pattern, input.container_id],
	"OCI.Version": [`^1\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.+-]+)?$`, input.OCI.Version],
	"OCI.Annotations[io.kubernetes.cri.sandbox-name]": [
		policy_data.pod.name, annotations["io.kubernetes.cri.sandbox-name"],
	],
	"OCI.Annotations[io.kubernetes.cri.sandbox-namespace]": [
		policy_data.pod.namespace, annotations["io.kubernetes.cri.sandbox-namespace"],
	],
	"OCI.Linux.CgroupsPath": [`^([A-Za-z0-9_:-][A-Za-z0-9_.:-]*|/[A-Za-z0-9_:-][A-Za-z0-9_.:-]*)*$`, input.OCI.Linux.CgroupsPath],
}

root_folder := sprintf("/run/kata-containers/%s/rootfs", [input.container_id])

default known(_) := false

known(id) := true if data.pstate[concat("", ["container:", id])]

known(id) := true if data.pstate.sandbox.id == id

annotation_prefixes := {
	"io.kubernetes.cri.", "io.katacontainers.pkg.oci.", "io.katacontainers.config.",
	"io.kubernetes.container.terminationMessage",
}

annotation_problems := {problem(sprintf("OCI.Annotations[%s]", [key]), "no such annotation", value) |
	some key, value in annotations
	not known_annotation(key)
}

known_annotation(key) if {
	some prefix in annotation_prefixes
	startswith(key, prefix)
}

namespace_types := {"ipc", "uts", "mount"}

namespace_problems := {problem("OCI.Linux.Namespaces", namespace_types, input.OCI.Linux.Namespaces) |
	types := {namespace.Type | some namespace in input.OCI.Linux.Namespaces; namespace.Path == ""}
	without_cgroup := types - {"cgroup"}
	[without_cgroup, count(types)] != [namespace_types, count(input.OCI.Linux.Namespaces)]
}

# ---- The sandbox's own container

pause_problems := unequal(pause_facts) | sysctl_problems

pause_facts := {
	"container_id": [false, sandbox_exists],
	"storages": [["image_guest_pull", "pause", root_folder], [
		object.get(input.storages[0], "driver", null),
		object.get(input.storages[0], "source", null),
		object.get(input.storages[0], "mount_point", null),
	]],
	"storages (count)": [1, count(input.storages)],
	"devices": [[], input.devices],
	"OCI.Linux.Devices": [[], input.OCI.Linux.Devices],
	"OCI.Linux.Sysctl": ["object", type_name(input.OCI.Linux.Sysctl)],
}

default sandbox_exists := false

sandbox_exists if data.pstate.sandbox

sysctl_problems := {problem(sprintf("OCI.Linux.Sysctl[%s]", [name]), policy_data.pod.sysctls, value) |
	some name, value in input.OCI.Linux.Sysctl
	not value in object.get(policy_data.pod.sysctls, name, [])
}

# ---- A container of the pod

container_problems := (((container_facts_problems | argument_problems) | (environment_problems | mount_problems)) |
	((storage_problems | capability_problems) | (path_problems | pod_security_problems))) |
	((volume_problems | device_problems) | rlimit_problems)

container_facts_problems := unequal(container_facts)

process := input.OCI.Process

container_facts := {
	"OCI.Annotations[io.kubernetes.cri.container-type]": ["container", annotations["io.kubernetes.cri.container-type"]],
	"OCI.Annotations[io.kubernetes.cri.image-name]": [wanted.image, annotations["io.kubernetes.cri.image-name"]],
	"OCI.Annotations[io.kubernetes.cri.sandbox-id]": [data.pstate.sandbox.id, annotations["io.kubernetes.cri.sandbox-id"]],
	"OCI.Annotations[io.kubernetes.cri.sandbox-name]": [data.pstate.sandbox.name, annotations["io.kubernetes.cri.sandbox-name"]],
	"OCI.Annotations[io.kubernetes.cri.sandbox-namespace]": [
		data.pstate.sandbox.namespace, annotations["io.kubernetes.cri.sandbox-namespace"],
	],
	"OCI.Annotations[io.kubernetes.cri.sandbox-uid]": [
		data.pstate.sandbox.uid, object.get(annotations, "io.kubernetes.cri.sandbox-uid", ""),
	],
	"OCI.Annotations[io.katacontainers.pkg.oci.container_type]": [
		"pod_container", annotations["io.katacontainers.pkg.oci.container_type"],
	],
	"OCI.Hostname": ["", input.OCI.Hostname],
	"OCI.Root.Readonly": [wanted.readonly_root, input.OCI.Root.Readonly],
	"OCI.Process.Terminal": [wanted.terminal, process.Terminal],
	"OCI.Process.Cwd": [wanted.cwd, process.Cwd],
	"OCI.Process.User.UID": [wanted.user.uid, process.User.UID],
	"OCI.Process.User.GID": [wanted.user.gid, process.User.GID],
	"OCI.Process.User.AdditionalGids": [wanted.user.additional_gids, sort(process.User.AdditionalGids)],
	"OCI.Process.User.Username": ["", process.User.Username],
	"OCI.Process.NoNewPrivileges": [wanted.no_new_privileges, process.NoNewPrivileges],
	"OCI.Process.ApparmorProfile": [true, process.ApparmorProfile in {"", "cri-containerd.apparmor.d"}],
	"OCI.Process.SelinuxLabel": ["", process.SelinuxLabel],
	"OCI.Process.OOMScoreAdj": [true, is_adjustment(process.OOMScoreAdj)],
	"OCI.Process.ConsoleSize": [true, is_console_size(process.ConsoleSize)],
	"OCI.Process.Args": ["array", type_name(process.Args)],
	"OCI.Process.Env": ["array", type_name(process.Env)],
	"OCI.Process.Rlimits": ["array", type_name(process.Rlimits)],
	"OCI.Linux.Sysctl": [{}, input.OCI.Linux.Sysctl],
}

default is_adjustment(_) := false

is_adjustment(value) := true if {
	is_number(value)
	value >= -1000
	value <= 1000
}

default is_console_size(_) := false

is_console_size(size) := true if size == null

is_console_size(size) := true if {
	wanted.terminal
	is_number(size.Height)
	is_number(size.Width)
}

argument_problems := {problem("OCI.Process.Args", wanted.args, process.Args) | not arguments_fit(wanted.args, process.Args)}

arguments_fit(values, actual) if {
	count(values) == count(actual)
	every index, value in values {
		fits(value, actual[index])
	}
}

# Every variable is one of the pod's, has its value, and is there once; none is missing.
environment_problems := (unknown_variables(process.Env) | missing_variables) | repeated_variables

variable_name(variable) := split(variable, "=")[0]

variable_value(variable) := substring(variable, count(variable_name(variable)) + 1, -1)

unknown_variables(variables) := {problem(sprintf("OCI.Process.Env[%s]", [name]), expected, variable) |
	some variable in variables
	not variable_allowed(variable)
	name := variable_name(variable)
	expected := object.get(wanted.env, name, "no such variable")
}

variable_allowed(variable) if {
	contains(variable, "=")
	fits(wanted.env[variable_name(variable)], variable_value(variable))
}

variable_allowed(variable) if {
	contains(variable, "=")
	not wanted.env[variable_name(variable)]
	some rule in wanted.variables
	matches(rule.name, variable_name(variable))
	fits(rule.value, variable_value(variable))
}

# Addresses of Services, as the kubelet makes them (envvars.FromServices).
variable_allowed(variable) if {
	contains(variable, "=")
	not wanted.env[variable_name(variable)]
	service_variable(variable_name(variable), variable_value(variable))
}

service_prefix := "[A-Z_][A-Z0-9_]*" if policy_data.pod.service_links

service_prefix := "KUBERNETES" if not policy_data.pod.service_links

service_patterns := [
	["_SERVICE_HOST", `[0-9a-fA-F.:]{2,45}`],
	["_SERVICE_PORT(_[A-Z0-9_]+)?", `[0-9]{1,5}`],
	["_PORT(_[0-9]{1,5}_(TCP|UDP|SCTP))?", `(tcp|udp|sctp)://\[?[0-9a-fA-F.:]{2,45}\]?:[0-9]{1,5}`],
	["_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_PROTO", `(tcp|udp|sctp)`],
	["_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_PORT", `[0-9]{1,5}`],
	["_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_ADDR", `[0-9a-fA-F.:]{2,45}`],
]

service_variable(name, value) if {
	some pattern in service_patterns
	matches(sprintf("^%s%s$", [service_prefix, pattern[0]]), name)
	matches(sprintf("^%s$", [pattern[1]]), value)
}

missing_variables := {problem(sprintf("OCI.Process.Env[%s]", [name]), value, null) |
	some name, value in wanted.env
	not name in {variable_name(variable) | some variable in process.Env}
}

repeated_variables := {problem("OCI.Process.Env", "each variable once", process.Env) |
	count({variable_name(variable) | some variable in process.Env}) != count(process.Env)
}

# Mounts: destination, type and source of each, each destination once, none that the pod declares missing.
mount_problems := ((unknown_mounts | wrong_mounts) | missing_mounts) | repeated_mounts

unknown_mounts := {problem(sprintf("OCI.Mounts[%s].destination", [mount.destination]), allowed, mount.destination) |
	some mount in input.OCI.Mounts
	not wanted.mounts[mount.destination]
	allowed := sort([destination | some destination, _ in wanted.mounts])
}

wrong_mounts := {found |
	some mount in input.OCI.Mounts
	allowed := wanted.mounts[mount.destination]
	some found in mount_differences(mount, allowed)
}

mount_differences(mount, allowed) := (source_difference(mount, allowed) | type_difference(mount, allowed)) |
	(option_difference(mount, allowed) | read_only_difference(mount, allowed))

mount_source(allowed) := replace(allowed.source, "$(copy)", sprintf("%s/%s-[0-9a-f]{16}-", [shared_folder, quoted(input.container_id)]))

source_difference(mount, allowed) := {problem(sprintf("OCI.Mounts[%s].source", [mount.destination]), expected, mount.source) |
	expected := sprintf("^%s$", [mount_source(allowed)])
	not matches(expected, mount.source)
}

type_difference(mount, allowed) := {problem(sprintf("OCI.Mounts[%s].type", [mount.destination]), mount_types(allowed), mount.type_) |
	not matches(mount_types(allowed), mount.type_)
}

option_difference(mount, allowed) := {problem(sprintf("OCI.Mounts[%s].options", [mount.destination]), mount_options[allowed.kind], option) |
	some option in mount.options
	not option in mount_options[allowed.kind]
}

mount_types(allowed) := "^bind$" if allowed.kind == "bind"

mount_types(allowed) := sprintf("^%s$", [allowed.source]) if allowed.kind == "kernel"

mount_options := {
	"bind": {"rbind", "bind", "rprivate", "private", "rslave", "slave", "ro", "rro", "rw", "nosuid", "nodev", "noexec"},
	"kernel": {
		"nosuid", "noexec", "nodev", "strictatime", "relatime", "mode=755", "size=65536k",
		"newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "ro",
	},
}

read_only_difference(mount, allowed) := {problem(sprintf("OCI.Mounts[%s].options", [mount.destination]), "ro", mount.options) |
	allowed.readonly
	count({option | some option in mount.options; option in {"ro", "rro"}}) == 0
}

missing_mounts := {problem(sprintf("OCI.Mounts[%s]", [destination]), "a mount", null) |
	some destination, allowed in wanted.mounts
	allowed.required
	not destination in {mount.destination | some mount in input.OCI.Mounts}
}

mount_destinations := [mount.destination | some mount in input.OCI.Mounts]

repeated_mounts := {problem("OCI.Mounts", "each destination once", mount_destinations) |
	count({destination | some destination in mount_destinations}) != count(input.OCI.Mounts)
}

# Storages: the image, by digest, and the empty directories of the pod.
storage_problems := ((unknown_storages | missing_storages) | (image_problems | image_count_problems)) | repeated_storages

unknown_storages := {problem(sprintf("storages[%s]", [storage.mount_point]), expected, storage) |
	some storage in input.storages
	storage.driver != "image_guest_pull"
	not storage_allowed(storage)
	not storage.mount_point in volume_mount_points
	expected := object.get(wanted.storages, storage.mount_point, wanted.storages)
}

missing_storages := {problem(sprintf("storages[%s]", [mount_point]), allowed, null) |
	some mount_point, allowed in wanted.storages
	not mount_point in {storage.mount_point | some storage in input.storages}
}

storage_allowed(storage) if {
	allowed := wanted.storages[storage.mount_point]
	[storage.driver, storage.source, storage.fstype] == [allowed.driver, allowed.source, allowed.fstype]
	storage.driver_options == []
	storage.shared == false
	fs_group_allowed(storage.fs_group)
	every option in storage.options {
		regex.match(`^(mode=0?[0-7]{3,4}|size=[0-9]{1,15}|fsgid=[0-9]{1,10})$`, option)
	}
}

fs_group_allowed(group) if group == null

fs_group_allowed(group) if {
	group.group_id == policy_data.pod.fs_group
	group.group_change_policy in {0, 1}
}

# Persistent volumes: by the path at which the container has them. What a disk is, the guest cannot know; by what key it is
# opened, it can.
volume_mount_points := {mount.source |
	some mount in input.OCI.Mounts
	wanted.volumes[mount.destination].kind == "filesystem"
}

volume_problems := missing_volumes | wrong_volumes

storages_of(path) := [storage |
	some mount in input.OCI.Mounts
	mount.destination == path
	some storage in input.storages
	storage.mount_point == mount.source
]

missing_volumes := {problem(sprintf("storages[%s]", [path]), "one persistent volume", storages_of(path)) |
	some path, volume in wanted.volumes
	volume.kind == "filesystem"
	count(storages_of(path)) != 1
}

wrong_volumes := {found |
	some path, volume in wanted.volumes
	volume.kind == "filesystem"
	some storage in storages_of(path)
	some found in unequal({
		sprintf("storages[%s].driver", [path]): [true, storage.driver in volume_drivers],
		sprintf("storages[%s].source", [path]): [true, is_disk_address(storage.source)],
		sprintf("storages[%s].fstype", [path]): ["ext4", storage.fstype],
		sprintf("storages[%s].shared", [path]): [false, storage.shared],
		sprintf("storages[%s].fs_group", [path]): [true, volume_group_allowed(storage.fs_group)],
		sprintf("storages[%s].options", [path]): [[], unknown_volume_options(storage.options)],
		sprintf("storages[%s].encryption_key", [path]): [wanted_keys(volume), keys_in(storage.driver_options)],
		sprintf("storages[%s].driver_options", [path]): [[], unknown_disk_options(storage.driver_options)],
	})
}

volume_drivers := {"blk", "scsi"}

default is_disk_address(_) := false

is_disk_address(source) := true if regex.match(`^([0-9]{1,3}:[0-9]{1,5}|[0-9a-f]{2}(/[0-9a-f]{2}){0,3})$`, source)

default volume_group_allowed(_) := false

volume_group_allowed(group) := true if fs_group_allowed(group)

unknown_volume_options(options) := [option |
	some option in options
	not regex.match(`^(ro|rw|noatime|nodiratime|relatime|strictatime|nosuid|nodev|noexec|discard)$`, option)
	option != sprintf("fsgid=%v", [policy_data.pod.fs_group])
]

key_option := "encryption_key="

keys_in(options) := [trim_prefix(option, key_option) | some option in options; startswith(option, key_option)]

wanted_keys(volume) := [] if volume.key == null

wanted_keys(volume) := [replace(
	replace(volume.key, "$(name)", data.pstate.sandbox.name),
	"$(namespace)",
	data.pstate.sandbox.namespace,
)] if {
	is_string(volume.key)
}

unknown_disk_options(options) := [option |
	some option in options
	not startswith(option, key_option)
	not regex.match(`^serial=[A-Za-z0-9._-]{1,64}$`, option)
]

# Raw block devices, by their path in the container. The specification's numbers are the host's; the guest puts in its own.
device_problems := (unknown_devices | missing_devices) | (wrong_devices | unreadable_devices)

block_volumes := {path | some path, volume in wanted.volumes; volume.kind == "block"}

unknown_devices := {problem(sprintf("%s[%s]", [name, path]), block_volumes, path) |
	some name, paths in {
		"devices": [device.container_path | some device in input.devices],
		"OCI.Linux.Devices": [device.Path | some device in input.OCI.Linux.Devices],
	}
	some path in paths
	not path in block_volumes
}

# What has no path at all.
unreadable_devices := {problem(name, "devices with a path each", given) |
	some name, given in {"devices": input.devices, "OCI.Linux.Devices": input.OCI.Linux.Devices}
	paths := array.concat(
		[device.container_path | some device in given; is_string(device.container_path)],
		[device.Path | some device in given; is_string(device.Path)],
	)
	count(paths) != count(given)
}

missing_devices := {problem(sprintf("devices[%s]", [path]), "one block device, named once in OCI.Linux.Devices", actual) |
	some path in block_volumes
	disks := [device | some device in input.devices; device.container_path == path]
	nodes := [node | some node in input.OCI.Linux.Devices; node.Path == path; node.Type == "b"]
	actual := [count(disks), count(nodes)]
	actual != [1, 1]
}

wrong_devices := {found |
	some device in input.devices
	volume := wanted.volumes[device.container_path]
	volume.kind == "block"
	path := device.container_path
	some found in unequal({
		sprintf("devices[%s].type", [path]): [true, device.type_ in volume_drivers],
		sprintf("devices[%s].id", [path]): [true, is_disk_address(device.id)],
		sprintf("devices[%s].vm_path", [path]): ["", device.vm_path],
		sprintf("devices[%s].encryption_key", [path]): [wanted_keys(volume), keys_in(device.options)],
		sprintf("devices[%s].options", [path]): [[], unknown_disk_options(device.options)],
	})
}

images := [storage | some storage in input.storages; storage.driver == "image_guest_pull"]

image_count_problems := {problem("storages[image_guest_pull]", 1, count(images)) | count(images) != 1}

storage_mount_points := [storage.mount_point | some storage in input.storages]

repeated_storages := {problem("storages", "each mount point once", storage_mount_points) |
	count({mount_point | some mount_point in storage_mount_points}) != count(input.storages)
}

image_problems := {found |
	some image in images
	facts := {
		"storages[image_guest_pull].source": [wanted.image, image.source],
		"storages[image_guest_pull].fstype": ["overlay", image.fstype],
		"storages[image_guest_pull].mount_point": [root_folder, image.mount_point],
		"storages[image_guest_pull].options": [[], image.options],
		"storages[image_guest_pull].fs_group": [null, image.fs_group],
		"storages[image_guest_pull].shared": [false, image.shared],
		"storages[image_guest_pull].driver_options": [true, image_options_allowed(image.driver_options)],
	}
	some found in unequal(facts)
}

default image_options_allowed(_) := false

# The metadata repeat the annotations, which are checked; they can neither say more nor make a sandbox of a container.
image_options_allowed(options) := true if {
	count(options) == 1
	startswith(options[0], "image_guest_pull=")
	volume := json.unmarshal(trim_prefix(options[0], "image_guest_pull="))
	object.keys(volume) == {"metadata"}
	volume.metadata["io.kubernetes.cri.container-type"] == "container"
	every key, value in volume.metadata {
		annotations[key] == value
	}
}

capability_problems := unequal({
	"OCI.Process.Capabilities.Bounding": [wanted.capabilities, sort(process.Capabilities.Bounding)],
	"OCI.Process.Capabilities.Effective": [wanted.capabilities, sort(process.Capabilities.Effective)],
	"OCI.Process.Capabilities.Permitted": [wanted.capabilities, sort(process.Capabilities.Permitted)],
	"OCI.Process.Capabilities.Inheritable": [[], process.Capabilities.Inheritable],
	"OCI.Process.Capabilities.Ambient": [[], process.Capabilities.Ambient],
}) if process.Capabilities != null

capability_problems := unequal({"OCI.Process.Capabilities": [wanted.capabilities, []]}) if process.Capabilities == null

path_problems := {problem(field, missing, actual) |
	some field, pair in {
		"OCI.Linux.MaskedPaths": [policy_data.masked_paths, input.OCI.Linux.MaskedPaths],
		"OCI.Linux.ReadonlyPaths": [policy_data.readonly_paths, input.OCI.Linux.ReadonlyPaths],
	}
	actual := pair[1]
	missing := [path | some path in pair[0]; not path in actual]
	count(missing) > 0
}

rlimit_problems := {problem("OCI.Process.Rlimits", "RLIMIT_…", limit) |
	some limit in process.Rlimits
	not rlimit_allowed(limit)
}

rlimit_allowed(limit) if {
	matches(`^RLIMIT_[A-Z]{2,12}$`, limit.Type)
	is_number(limit.Hard)
	is_number(limit.Soft)
}

# Pod Security Standard "restricted", once more and apart from what the pod says.
default pod_security_problems := set()

pod_security_problems := unequal(restricted_facts) if policy_data.pod.security == "restricted"

restricted_facts := {
	"OCI.Process.NoNewPrivileges (restricted)": [true, process.NoNewPrivileges],
	"OCI.Process.User.UID (restricted)": [true, process.User.UID != 0],
	"OCI.Process.Capabilities (restricted)": [[], further_capabilities],
}

further_capabilities := [name |
	some name in process.Capabilities.Bounding
	name != "CAP_NET_BIND_SERVICE"
]

# ---- Life of containers. A container runs once at a time, and after those that the pod wants before it.

default StartContainerRequest := {"allowed": false, "ops": []}

StartContainerRequest := {"allowed": true, "ops": []} if input.container_id == data.pstate.sandbox.id

StartContainerRequest := {"allowed": true, "ops": start_operations} if {
	started_name
	count(start_problems) == 0
}

StartContainerRequest := {"allowed": false, "ops": []} if {
	count(start_problems) > 0
	told("StartContainerRequest", "", start_problems)
}

started_name := data.pstate[concat("", ["container:", input.container_id])]

running_key(name) := concat("", ["running:", name])

start_problems := {problem("container_id", "a container that was created", input.container_id)} if {
	not started_name
	input.container_id != data.pstate.sandbox.id
}

start_problems := running_problems | order_problems if started_name

running_problems := {problem("container_id", sprintf("one container %s at a time", [started_name]), input.container_id) |
	data.pstate[running_key(started_name)]
}

order_problems := {problem("container_id", sprintf("%s after container %s", [started_name, before]), input.container_id) |
	some before in policy_data.containers[started_name].after
	not data.pstate[concat("", ["ran:", before])]
}

start_operations := [
	{"op": "add", "path": concat("", ["/pstate/", running_key(started_name)]), "value": input.container_id},
	{"op": "add", "path": concat("", ["/pstate/ran:", started_name]), "value": true},
]

RemoveContainerRequest := {"allowed": true, "ops": array.concat(forget_container, forget_running)}

default forget_container := []

forget_container := [{"op": "remove", "path": concat("", ["/pstate/container:", input.container_id])}] if {
	data.pstate[concat("", ["container:", input.container_id])]
}

default forget_running := []

forget_running := [{"op": "remove", "path": concat("", ["/pstate/", running_key(started_name)])}] if {
	data.pstate[running_key(started_name)] == input.container_id
}

# ---- Commands in running containers

container_of(id) := policy_data.containers[data.pstate[concat("", ["container:", id])]]

ExecProcessRequest := verdict("ExecProcessRequest", exec_problems)

exec_problems := {problem("container_id", "a container that was created", input.container_id)} if {
	not container_of(input.container_id)
}

exec_problems := (unequal(exec_facts) | unmatched(exec_patterns)) | (command_problems | exec_environment_problems) if {
	container_of(input.container_id)
}

executing := container_of(input.container_id)

exec_facts := {
	"string_user": [null, input.string_user],
	"stdin_port": [null, input.stdin_port],
	"stdout_port": [null, input.stdout_port],
	"stderr_port": [null, input.stderr_port],
	"process.User.UID": [executing.user.uid, input.process.User.UID],
	"process.User.GID": [executing.user.gid, input.process.User.GID],
	"process.User.AdditionalGids": [executing.user.additional_gids, sort(input.process.User.AdditionalGids)],
	"process.User.Username": ["", input.process.User.Username],
	"process.Cwd": [executing.cwd, input.process.Cwd],
	"process.NoNewPrivileges": [executing.no_new_privileges, input.process.NoNewPrivileges],
	"process.Terminal": [true, exec_terminal_allowed(input.process.Terminal)],
	"process.Capabilities": [true, exec_capabilities_allowed(input.process.Capabilities)],
	"process.SelinuxLabel": ["", input.process.SelinuxLabel],
	"process.ApparmorProfile": [true, input.process.ApparmorProfile in {"", "cri-containerd.apparmor.d"}],
	"process.Args": ["array", type_name(input.process.Args)],
	"process.Env": ["array", type_name(input.process.Env)],
}

exec_patterns := {"exec_id": [id_pattern, input.exec_id]}

default exec_terminal_allowed(_) := false

exec_terminal_allowed(terminal) := true if terminal == false

exec_terminal_allowed(terminal) := true if {
	terminal == true
	policy_data.allow.exec
}

default exec_capabilities_allowed(_) := false

exec_capabilities_allowed(given) := true if given == null

exec_capabilities_allowed(given) := true if {
	every list in [given.Bounding, given.Effective, given.Permitted] {
		every name in list {
			name in executing.capabilities
		}
	}
	given.Inheritable == []
	given.Ambient == []
}

command_problems := {problem("process.Args", executing.commands, input.process.Args) | not command_allowed}

command_allowed if policy_data.allow.exec

command_allowed if {
	some command in executing.commands
	arguments_fit(command, input.process.Args)
}

exec_environment_problems := {problem(sprintf("process.Env[%s]", [variable_name(variable)]), "a variable of the container", variable) |
	some variable in input.process.Env
	not exec_variable_allowed(variable)
}

exec_variable_allowed(variable) if variable == "TERM=xterm"

exec_variable_allowed(variable) if {
	contains(variable, "=")
	fits(executing.env[variable_name(variable)], variable_value(variable))
}

exec_variable_allowed(variable) if {
	contains(variable, "=")
	not executing.env[variable_name(variable)]
	some rule in executing.variables
	matches(rule.name, variable_name(variable))
	fits(rule.value, variable_value(variable))
}

exec_variable_allowed(variable) if {
	contains(variable, "=")
	not executing.env[variable_name(variable)]
	service_variable(variable_name(variable), variable_value(variable))
}

# ---- Input and output

WriteStreamRequest := verdict("WriteStreamRequest", input_problems)

CloseStdinRequest := verdict("CloseStdinRequest", input_problems)

input_problems := {problem("container_id", "a container with `stdin: true`, or --allow-exec", input.container_id) | not input_allowed}

input_allowed if policy_data.allow.exec

input_allowed if {
	container_of(input.container_id).stdin
	input.exec_id in {"", input.container_id}
}

ReadStreamRequest := verdict("ReadStreamRequest", {problem("container_id", "a policy made without --no-logs", input.container_id) |
	not policy_data.allow.logs
})

GetDiagnosticDataRequest := verdict("GetDiagnosticDataRequest", {problem("log_type", "termination_log, and a policy made without --no-logs", input.log_type) |
	not diagnostic_allowed
})

diagnostic_allowed if {
	policy_data.allow.logs
	input.log_type == "termination_log"
}

# ---- Files of volumes that the host copies in: below one folder, under names that belong to the pod's volumes. What the
# pod's owner knew of their content when the policy was made is compared by digest.

CopyFileRequest := verdict("CopyFileRequest", copy_problems)

segments := split(input.path, "/")

copy_name := segments[5]

copy_path := concat("/", array.slice(segments, 6, count(segments)))

copy_problems := confinement_problems | mode_problems if count(confinement_problems) > 0

copy_problems := content_problems | mode_problems if count(confinement_problems) == 0

confinement_problems := {problem("path", sprintf("below %s", [shared_folder]), input.path) | not confined}

confined if {
	startswith(input.path, concat("", [shared_folder, "/"]))
	count(segments) > 5
	every segment in array.slice(segments, 5, count(segments)) {
		not segment in {"", ".", ".."}
	}
}

mode_problems := unequal({
	"file_type": [true, input.file_type in {"Regular", "Directory", "Symlink"}],
	"file_mode": [0, bits.and(input.file_mode, 3072)],
	"file_size": [true, is_size(input.file_size)],
	"offset": [true, is_size(input.offset)],
})

default is_size(_) := false

is_size(value) := true if {
	is_number(value)
	value >= 0
	value <= 268435456
}

content_problems := unknown_copies | changed_copies

unknown_copies := {problem("path", "a volume of the pod", input.path) | count(volumes_of_copy) == 0}

changed_copies := {found |
	count(volumes_of_copy) > 0
	not copy_allowed
	expected := [volume.files | some volume in volumes_of_copy]
	actual := [input.file_size, object.get(input, "data_sha256", null), input.symlink_target]
	found := problem(sprintf("content of %s in volume %s", [copy_path, copy_name]), expected, actual)
}

volumes_of_copy := [volume |
	some volume in policy_data.volumes
	regex.match(sprintf("^[A-Za-z0-9][A-Za-z0-9_.]*-[0-9a-f]{16}-(%s)$", [volume.name]), copy_name)
]

copy_allowed if {
	some volume in volumes_of_copy
	volume.files == null
	link_confined
}

copy_allowed if {
	some volume in volumes_of_copy
	is_object(volume.files)
	known_content(volume.files)
}

default link_confined := false

link_confined if input.file_type != "Symlink"

link_confined if {
	not startswith(input.symlink_target, "/")
	not ".." in {segment | some segment in split(input.symlink_target, "/")}
}

# kubelet's layout: ..data → ..<time>, <file> → ..data/<file>, ..<time>/<file>.
version_pattern := `\.\.[0-9_.]{1,64}`

known_content(_) if input.file_type == "Directory"

known_content(_) if {
	input.file_type == "Symlink"
	copy_path == "..data"
	matches(sprintf("^%s$", [version_pattern]), input.symlink_target)
}

known_content(files) if {
	input.file_type == "Symlink"
	input.symlink_target == concat("", ["..data/", copy_path])
	some path, _ in files
	split(path, "/")[0] == copy_path
}

known_content(files) if {
	input.file_type == "Regular"
	file_fits(files[regex.replace(copy_path, sprintf("^%s/", [version_pattern]), "")])
}

# Of what a Secret holds in the clear the name alone is known.
file_fits(file) if file == null

file_fits(file) if {
	is_object(file)
	input.offset == 0
	input.file_size == file.size
	digest_fits(file)
}

digest_fits(file) if input.data_sha256 == file.sha256

# A guest whose policy does not see digests (upstream's): the size is all there is to compare.
digest_fits(_) if not has_digest

has_digest if is_string(input.data_sha256)

# ---- Network

UpdateInterfaceRequest := verdict("UpdateInterfaceRequest", unequal({
	"interface.name": [true, is_interface(input.interface.name)],
	"interface.device": [true, is_interface(input.interface.device)],
	"interface.hwAddr": [true, is_hardware_address(input.interface.hwAddr)],
}))

default is_interface(_) := false

is_interface(name) := true if {
	regex.match(`^[A-Za-z0-9_.-]{0,15}$`, name)
	name != "lo"
}

default is_hardware_address(_) := false

is_hardware_address(text) := true if {
	regex.match(`^([0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5})?$`, text)
	text != "00:00:00:00:00:00"
}

UpdateRoutesRequest := verdict("UpdateRoutesRequest", route_problems) if is_array(input.routes.Routes)

route_problems := {problem("routes.Routes", "a route that is not of this machine alone", route) |
	some route in input.routes.Routes
	not route_allowed(route)
}

route_allowed(route) if {
	is_interface(route.device)
	not startswith(route.dest, "127.")
	not startswith(route.source, "127.")
}

AddARPNeighborsRequest := verdict("AddARPNeighborsRequest", neighbour_problems) if is_array(input.neighbors.ARPNeighbors)

neighbour_problems := {problem("neighbors.ARPNeighbors", "a neighbour of the pod's network", neighbour) |
	some neighbour in input.neighbors.ARPNeighbors
	not neighbour_allowed(neighbour)
}

neighbour_allowed(neighbour) if {
	is_interface(neighbour.device)
	neighbour.state in {2, 128}
	is_hardware_address(neighbour.lladdr)
	not startswith(neighbour.toIPAddress.address, "127.")
}

# ---- Limits may change, devices may not.

UpdateContainerRequest := verdict("UpdateContainerRequest", unequal({
	"resources.Devices": [[], input.resources.Devices],
	"resources.BlockIO": [null, input.resources.BlockIO],
	"resources.Network": [null, input.resources.Network],
}))

# ---- Requests that tell the host nothing it does not know, or end what it could end anyway.

DestroySandboxRequest := true

GetOOMEventRequest := true

GuestDetailsRequest := true

OnlineCPUMemRequest := true

RemoveStaleVirtiofsShareMountsRequest := true

SignalProcessRequest := true

StatsContainerRequest := true

TtyWinResizeRequest := true

WaitProcessRequest := true

# ---- What no pod needs: refused, with a word.

SetPolicyRequest := never("SetPolicyRequest")

PauseContainerRequest := never("PauseContainerRequest")

ResumeContainerRequest := never("ResumeContainerRequest")

UpdateEphemeralMountsRequest := never("UpdateEphemeralMountsRequest")

GetMetricsRequest := never("GetMetricsRequest")

ListInterfacesRequest := never("ListInterfacesRequest")

ListRoutesRequest := never("ListRoutesRequest")

SetGuestDateTimeRequest := never("SetGuestDateTimeRequest")

ReseedRandomDevRequest := never("ReseedRandomDevRequest")

never(rule) := verdict(rule, {problem("request", "no such request: no pod needs it", rule)})
