package exporter

// family is the place of a metric family in the table.
type family int

// The families, in the order of the table.
const (
	gpuUp family = iota
	gpuInfo
	gpuStatus
	gpuCondition
	gpuIgnoredUntil
	gpuInstanceInfo
	gpuInstanceStatus
	gpuLastAnswer
	gpuTemperature
	gpuPower
	gpuPowerLimit
	gpuEnergy
	gpuMemoryTotal
	gpuMemoryUsed
	gpuMemoryFree
	gpuMemoryReserved
	gpuUtilization
	gpuMemoryController
	gpuClock
	gpuClockMax
	gpuPCIeReplays
	gpuECCErrors
	gpuRemappedRows
	gpuRowRemapPending
	gpuRowRemapFailed
	gpuRecoveryAction
	gpuXidErrors
	gpuXidLast
	nvmlCalls
	nvmlCallErrors
	nvmlCallSeconds

	nodeCondition
	driverUp
	paused
	pausedUntil
	buildInfo
	standingBy
	events
	logUp
	logRecords
	logSpoofed
	logGaps
	logLost
	undecoded
	acceptingUserLines
	snapshotSequence
	snapshotTime
	workerStarts
	workerDeaths
	workerKills
	workersStuck
	driverEventsUp
	draMode
	draRegistered
	draDevices
	draWrites
	draClaims
	outputUp
	outputSequence
	outputTime
	stateSaved
	stateSaveError
	trailLost
	configReload
	configReloaded

	families // how many there are
)

// row describes a family.
type row struct {
	name, help string
	labels     []string
	counter    bool // otherwise a gauge
	// ours: the counter began at zero when the daemon started, which is its
	// created timestamp. Of others nobody knows when they began.
	ours bool
}

// ofGPU is the labels of a family that has series per GPU.
func ofGPU(more ...string) []string { return append([]string{"uuid", "gpu"}, more...) }

var table = [families]row{
	gpuUp: {
		name: "gpuvet_gpu_up", labels: ofGPU(),
		help: "Whether the GPU answers: 1 it does, 0 it does not.",
	},
	gpuInfo: {
		name: "gpuvet_gpu_info", labels: ofGPU("pci", "name", "architecture", "serial", "vbios", "minor", "driver_version", "cuda_version"),
		help: "Always 1; what is known of the GPU and its driver.",
	},
	gpuStatus: {
		name: "gpuvet_gpu_status", labels: ofGPU("status"),
		help: "Whether the GPU is fit: 1 for its status, 0 for the others. Unknown: its readings are too old to tell.",
	},
	gpuCondition: {
		name: "gpuvet_gpu_condition", labels: ofGPU("gpu_instance", "compute_instance", "reason", "class", "effect"),
		help: "Always 1; one series per fault that the GPU has at present. One that stays with a MIG device names it.",
	},
	gpuIgnoredUntil: {
		name: "gpuvet_gpu_ignored_until_timestamp_seconds", labels: ofGPU("reason"),
		help: "When the reason counts again; one series per reason that somebody wants ignored for a while.",
	},
	gpuInstanceInfo: {
		name: "gpuvet_gpu_instance_info", labels: ofGPU("gpu_instance", "compute_instance", "mig_uuid", "profile"),
		help: "Always 1; one series per MIG device of the GPU.",
	},
	gpuInstanceStatus: {
		name: "gpuvet_gpu_instance_status", labels: ofGPU("gpu_instance", "compute_instance", "status"),
		help: "Whether the MIG device is fit, by its own faults and those of its GPU: 1 for its status, 0 for the others.",
	},
	gpuLastAnswer: {
		name: "gpuvet_gpu_last_answer_timestamp_seconds", labels: ofGPU(),
		help: "When the GPU answered last, also if it does not any more.",
	},
	gpuTemperature: {
		name: "gpuvet_gpu_temperature_celsius", labels: ofGPU("sensor"),
		help: "Temperature, by sensor (core, memory).",
	},
	gpuPower: {
		name: "gpuvet_gpu_power_watts", labels: ofGPU(),
		help: "Power that the board draws.",
	},
	gpuPowerLimit: {
		name: "gpuvet_gpu_power_limit_watts", labels: ofGPU(),
		help: "Power limit in force.",
	},
	gpuEnergy: {
		name: "gpuvet_gpu_energy_joules_total", labels: ofGPU(), counter: true,
		help: "Energy that the board has drawn since the driver was loaded.",
	},
	gpuMemoryTotal: {
		name: "gpuvet_gpu_memory_total_bytes", labels: ofGPU(),
		help: "Device memory.",
	},
	gpuMemoryUsed: {
		name: "gpuvet_gpu_memory_used_bytes", labels: ofGPU(),
		help: "Device memory in use, without what the driver reserves.",
	},
	gpuMemoryFree: {
		name: "gpuvet_gpu_memory_free_bytes", labels: ofGPU(),
		help: "Device memory that is free.",
	},
	gpuMemoryReserved: {
		name: "gpuvet_gpu_memory_reserved_bytes", labels: ofGPU(),
		help: "Device memory that the driver reserves.",
	},
	gpuUtilization: {
		name: "gpuvet_gpu_utilization_ratio", labels: ofGPU(),
		help: "Share of the last sample period in which any kernel ran, 0 to 1. It does not say how much of the GPU the kernel used.",
	},
	gpuMemoryController: {
		name: "gpuvet_gpu_memory_controller_utilization_ratio", labels: ofGPU(),
		help: "Share of the last sample period in which device memory was read or written, 0 to 1. It does not say how full the memory is.",
	},
	gpuClock: {
		name: "gpuvet_gpu_clock_hertz", labels: ofGPU("clock"),
		help: "Clock frequency, by domain (graphics, sm, memory, video).",
	},
	gpuClockMax: {
		name: "gpuvet_gpu_clock_max_hertz", labels: ofGPU("clock"),
		help: "Highest frequency of the clock, by domain.",
	},
	gpuPCIeReplays: {
		name: "gpuvet_gpu_pcie_replays_total", labels: ofGPU(), counter: true,
		help: "PCIe packets sent again since the driver was loaded.",
	},
	gpuECCErrors: {
		name: "gpuvet_gpu_ecc_errors_total", labels: ofGPU("type", "counter", "location"), counter: true,
		help: "Memory errors by type (corrected, uncorrected), counter (volatile: since the driver was loaded, aggregate: over the life of the GPU) and location.",
	},
	gpuRemappedRows: {
		name: "gpuvet_gpu_remapped_rows", labels: ofGPU("cause"),
		help: "Rows of device memory replaced by spare ones, by the kind of error that caused it (correctable, uncorrectable).",
	},
	gpuRowRemapPending: {
		name: "gpuvet_gpu_row_remap_pending", labels: ofGPU(),
		help: "Whether a row remap waits for a reset.",
	},
	gpuRowRemapFailed: {
		name: "gpuvet_gpu_row_remap_failed", labels: ofGPU(),
		help: "Whether a row could not be remapped, for want of a spare one.",
	},
	gpuRecoveryAction: {
		name: "gpuvet_gpu_recovery_action", labels: ofGPU("action"),
		help: "What the driver asks for: 1 for that action, 0 for the others.",
	},
	gpuXidErrors: {
		name: "gpuvet_gpu_xid_errors_total", labels: ofGPU("xid"), counter: true,
		help: "Xid errors since the node was booted, each counted once whoever reported it. Those worth an alert begin at 0.",
	},
	gpuXidLast: {
		name: "gpuvet_gpu_xid_last_timestamp_seconds", labels: ofGPU("xid"),
		help: "When the Xid was last reported since the node was booted.",
	},
	nvmlCalls: {
		name: "gpuvet_nvml_calls_total", labels: ofGPU("call"), counter: true, ours: true,
		help: "Questions to the driver, by GPU and call (readings, health); the inventory is about no single GPU.",
	},
	nvmlCallErrors: {
		name: "gpuvet_nvml_call_errors_total", labels: ofGPU("call"), counter: true, ours: true,
		help: "Questions to the driver that got no good answer, by GPU and call.",
	},
	nvmlCallSeconds: {
		name: "gpuvet_nvml_call_seconds_total", labels: ofGPU("call"), counter: true, ours: true,
		help: "Time that questions to the driver took, by GPU and call.",
	},

	nodeCondition: {
		name: "gpuvet_node_condition", labels: []string{"reason", "class", "effect"},
		help: "Always 1; one series per fault of the node or its fabric.",
	},
	driverUp: {
		name: "gpuvet_driver_up",
		help: "Whether the node has a working NVIDIA driver; absent until it was looked for.",
	},
	paused: {
		name: "gpuvet_paused",
		help: "Whether NVML is closed because somebody wants it so: the GPUs are not monitored meanwhile, and the kernel log is.",
	},
	pausedUntil: {
		name: "gpuvet_paused_until_timestamp_seconds",
		help: "When the pause ends by itself; absent while there is none.",
	},
	buildInfo: {
		name: "gpuvet_build_info", labels: []string{"version", "goversion"},
		help: "Always 1; which gpuvet this is.",
	},
	standingBy: {
		name: "gpuvet_standby",
		help: "Whether this daemon waits for another one on its node to end, and does nothing meanwhile.",
	},
	events: {
		name: "gpuvet_events_total", labels: []string{"source", "kind"}, counter: true,
		help: "Observations folded since the node was booted, by source and kind; one that says that all is well counts too.",
	},
	logUp: {
		name: "gpuvet_kernel_log_up",
		help: "Whether the kernel log is being read.",
	},
	logRecords: {
		name: "gpuvet_kernel_log_records_total", counter: true, ours: true,
		help: "Records read from the kernel log.",
	},
	logSpoofed: {
		name: "gpuvet_kernel_log_spoofed_total", counter: true, ours: true,
		help: "Records that looked like the driver's and were written by a process. They decide nothing.",
	},
	logGaps: {
		name: "gpuvet_kernel_log_gaps_total", counter: true,
		help: "Times since the node was booted that the kernel log overwrote records before they were read.",
	},
	logLost: {
		name: "gpuvet_kernel_log_lost_records_total", counter: true,
		help: "Records of the kernel log overwritten before they were read, since the node was booted.",
	},
	undecoded: {
		name: "gpuvet_xid_undecoded_total", counter: true,
		help: "Reports of Xids 144 to 150, since the node was booted, that no rule of NVIDIA's catalogue fits. The line's own word has decided about them.",
	},
	acceptingUserLines: {
		name: "gpuvet_accepting_user_kernel_lines",
		help: "Whether kernel-log lines count that any process may have written: 1 in tests only.",
	},
	snapshotSequence: {
		name: "gpuvet_snapshot_sequence",
		help: "Number of the newest snapshot.",
	},
	snapshotTime: {
		name: "gpuvet_snapshot_timestamp_seconds",
		help: "Time of the newest event in the newest snapshot.",
	},
	workerStarts: {
		name: "gpuvet_nvml_worker_starts_total", counter: true, ours: true,
		help: "Processes that were started to ask NVML.",
	},
	workerDeaths: {
		name: "gpuvet_nvml_worker_deaths_total", counter: true, ours: true,
		help: "Processes that ask NVML and ended though nobody wanted it: they crashed, or said what nobody understands.",
	},
	workerKills: {
		name: "gpuvet_nvml_worker_kills_total", counter: true, ours: true,
		help: "Processes that ask NVML and had to be killed, because a call of theirs never came back.",
	},
	workersStuck: {
		name: "gpuvet_nvml_workers_stuck",
		help: "Processes whose call to the driver is out past its deadline.",
	},
	driverEventsUp: {
		name: "gpuvet_nvml_events_up",
		help: "Whether the driver's events are listened to; the kernel log tells most of them too.",
	},
	draMode: {
		name: "gpuvet_dra_mode", labels: []string{"mode"},
		help: "How sick devices are kept from new work: 1 for the mode in force. starting: nothing is known of the API server yet; taints: by device taints; attribute: by the attribute healthy alone, for the API server keeps no device taints; withheld: nothing is published, for another driver or a device plugin gives out the GPUs.",
	},
	draRegistered: {
		name: "gpuvet_dra_registered",
		help: "Whether the kubelet knows the DRA driver.",
	},
	draDevices: {
		name: "gpuvet_dra_devices", labels: []string{"state"},
		help: "Devices in the ResourceSlices of this node (published), and those that wait until containers can be given them (waiting).",
	},
	draWrites: {
		name: "gpuvet_dra_slice_writes_total", labels: []string{"verb"}, counter: true, ours: true,
		help: "ResourceSlices written, by verb.",
	},
	draClaims: {
		name: "gpuvet_dra_claims", labels: []string{"state"},
		help: "Claims that hold devices of this node: prepared, or about to be (intended).",
	},
	outputUp: {
		name: "gpuvet_output_up", labels: []string{"output"},
		help: "Whether the last attempt of the output went well.",
	},
	outputSequence: {
		name: "gpuvet_output_applied_sequence", labels: []string{"output"},
		help: "Number of the last snapshot that the output has applied.",
	},
	outputTime: {
		name: "gpuvet_output_applied_timestamp_seconds", labels: []string{"output"},
		help: "When the output last applied a snapshot.",
	},
	stateSaved: {
		name: "gpuvet_state_saved_timestamp_seconds",
		help: "When the state was last saved.",
	},
	stateSaveError: {
		name: "gpuvet_state_save_error",
		help: "Whether the last attempt to save the state failed.",
	},
	trailLost: {
		name: "gpuvet_trail_lost_records_total", counter: true, ours: true,
		help: "Records that the trail did not take.",
	},
	configReload: {
		name: "gpuvet_config_reload_success",
		help: "Whether the configuration file as it is now was taken: 0 leaves the policy before in force.",
	},
	configReloaded: {
		name: "gpuvet_config_last_reload_timestamp_seconds",
		help: "When the configuration was taken last, at the start or by a reload.",
	},
}
