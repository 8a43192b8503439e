package fakelib

// The page as compile/src/page.h lays it out. A test compares the two, by the
// tags; why there is what is said there.

const (
	pageMagic  = 0x656761702d4c4d4e
	pageLayout = 3

	maxGPUs      = 16
	maxEvents    = 1024
	maxExcluded  = 4
	maxLinks     = 18
	maxInstances = 8
	maxProfiles  = 8
	maxProcesses = 32
	maxFields    = 64
	maxSamples   = 128
	maxMetrics   = 128

	absent     = ^uint64(0)
	noInstance = ^uint32(0)
)

// Places in page.Latency.
const groupCount = 12

// Places in gpu.ViolationNS.
const (
	violationPower = iota
	violationSyncBoost
	violationSWThermal
	violationHWThermal
	violationPowerBrake
	violationBoardLimit
	violationReliability
	violationCount
)

const clockCount = 4 // graphics, sm, memory, video

type link struct {
	State            uint64 `c:"state"`
	Replays          uint64 `c:"replays"`
	Recoveries       uint64 `c:"recoveries"`
	CRCErrors        uint64 `c:"crc_errors"`
	CRCDataErrors    uint64 `c:"crc_data_errors"`
	ReceiveErrors    uint64 `c:"receive_errors"`
	IntegrityErrors  uint64 `c:"integrity_errors"`
	TransmitDiscards uint64 `c:"transmit_discards"`
	RecoveriesFailed uint64 `c:"recoveries_failed"`
	EffectiveErrors  uint64 `c:"effective_errors"`
	SymbolErrors     uint64 `c:"symbol_errors"`
	Sent             uint64 `c:"sent"`
	Received         uint64 `c:"received"`
}

type profile struct {
	Index           uint32   `c:"index"`
	ID              uint32   `c:"id"`
	Slices          uint32   `c:"slices"`
	Size            uint32   `c:"size"`
	Starts          uint32   `c:"starts"`
	Count           uint32   `c:"count"`
	Multiprocessors uint32   `c:"multiprocessors"`
	CopyEngines     uint32   `c:"copy_engines"`
	Decoders        uint32   `c:"decoders"`
	Encoders        uint32   `c:"encoders"`
	JPEG            uint32   `c:"jpeg"`
	OFA             uint32   `c:"ofa"`
	MemoryMB        uint64   `c:"memory_mb"`
	Name            [32]byte `c:"name"`
}

type instance struct {
	Present         uint32   `c:"present"`
	GI              uint32   `c:"gi"`
	CI              uint32   `c:"ci"`
	Profile         uint32   `c:"profile"`
	Start           uint32   `c:"start"`
	Size            uint32   `c:"size"`
	CIStart         uint32   `c:"ci_start"`
	CISlices        uint32   `c:"ci_slices"`
	MemoryUsed      uint64   `c:"memory_used"`
	Multiprocessors uint32   `c:"multiprocessors"`
	Reserved        uint32   `c:"reserved"`
	Name            [32]byte `c:"name"`
	UUID            [48]byte `c:"uuid"`
}

type process struct {
	PID               uint32   `c:"pid"`
	Kind              uint32   `c:"kind"`
	GI                uint32   `c:"gi"`
	CI                uint32   `c:"ci"`
	Memory            uint64   `c:"memory"`
	SM                uint32   `c:"sm"`
	MemoryUtilization uint32   `c:"memory_utilization"`
	Encoder           uint32   `c:"encoder"`
	Decoder           uint32   `c:"decoder"`
	Name              [32]byte `c:"name"`
}

type field struct {
	ID      uint32 `c:"id"`
	Scope   uint32 `c:"scope"`
	Type    uint32 `c:"type"`
	Failure uint32 `c:"failure"`
	Bits    uint64 `c:"bits"`
}

type sample struct {
	Time              uint64 `c:"time"`
	PowerMW           uint32 `c:"power_mw"`
	Utilization       uint32 `c:"utilization"`
	MemoryUtilization uint32 `c:"memory_utilization"`
	SMMHz             uint32 `c:"sm_mhz"`
	MemoryMHz         uint32 `c:"memory_mhz"`
	Reserved          uint32 `c:"reserved"`
}

type fabric struct {
	State    uint32   `c:"state"`
	Status   uint32   `c:"status"`
	Clique   uint32   `c:"clique"`
	Mask     uint32   `c:"mask"`
	Summary  uint32   `c:"summary"`
	Reserved uint32   `c:"reserved"`
	Cluster  [16]byte `c:"cluster"`
}

type gpu struct {
	Sequence uint64 `c:"sequence"`

	Present uint32 `c:"present"`
	Lost    uint32 `c:"lost"`
	Hang    uint32 `c:"hang"`
	Failure uint32 `c:"failure"`
	Unbound uint32 `c:"unbound"`
	Spare   uint32 `c:"spare"`

	PCI             [16]byte `c:"pci"`
	UUID            [48]byte `c:"uuid"`
	Name            [64]byte `c:"name"`
	Serial          [32]byte `c:"serial"`
	VBIOS           [32]byte `c:"vbios"`
	Part            [32]byte `c:"part"`
	Minor           uint64   `c:"minor"`
	Addressing      uint64   `c:"addressing"`
	PCIDevice       uint32   `c:"pci_device"`
	PCISubsystem    uint32   `c:"pci_subsystem"`
	Architecture    uint32   `c:"architecture"`
	Brand           uint32   `c:"brand"`
	CapabilityMajor uint32   `c:"capability_major"`
	CapabilityMinor uint32   `c:"capability_minor"`
	Cores           uint32   `c:"cores"`
	BusWidth        uint32   `c:"bus_width"`
	Module          uint32   `c:"module"`
	HasGPM          uint32   `c:"has_gpm"`

	Temperature          uint64                 `c:"temperature"`
	MemoryTemperature    uint64                 `c:"memory_temperature"`
	TemperatureSlowdown  uint64                 `c:"temperature_slowdown"`
	TemperatureShutdown  uint64                 `c:"temperature_shutdown"`
	TemperatureMax       uint64                 `c:"temperature_max"`
	TemperatureMemoryMax uint64                 `c:"temperature_memory_max"`
	PowerMW              uint64                 `c:"power_mw"`
	PowerLimitMW         uint64                 `c:"power_limit_mw"`
	PowerMinMW           uint64                 `c:"power_min_mw"`
	PowerMaxMW           uint64                 `c:"power_max_mw"`
	PowerDefaultMW       uint64                 `c:"power_default_mw"`
	EnergyMJ             uint64                 `c:"energy_mj"`
	MemoryTotal          uint64                 `c:"memory_total"`
	MemoryUsed           uint64                 `c:"memory_used"`
	MemoryReserved       uint64                 `c:"memory_reserved"`
	BAR1Total            uint64                 `c:"bar1_total"`
	Utilization          uint64                 `c:"utilization"`
	MemoryUtilization    uint64                 `c:"memory_utilization"`
	ClockMHz             [clockCount]uint64     `c:"clock_mhz"`
	MaxClockMHz          [clockCount]uint64     `c:"max_clock_mhz"`
	ClockReasons         uint64                 `c:"clock_reasons"`
	PerformanceState     uint64                 `c:"performance_state"`
	Persistence          uint64                 `c:"persistence"`
	ViolationNS          [violationCount]uint64 `c:"violation_ns"`

	PCIeGeneration    uint64 `c:"pcie_generation"`
	PCIeWidth         uint64 `c:"pcie_width"`
	PCIeMaxGeneration uint64 `c:"pcie_max_generation"`
	PCIeMaxWidth      uint64 `c:"pcie_max_width"`
	PCIeSentKBps      uint64 `c:"pcie_sent_kbps"`
	PCIeReceivedKBps  uint64 `c:"pcie_received_kbps"`
	PCIeSent          uint64 `c:"pcie_sent"`
	PCIeReceived      uint64 `c:"pcie_received"`
	PCIeReplays       uint64 `c:"pcie_replays"`

	PCIeMaxGenerationGPU    uint64 `c:"pcie_max_generation_gpu"`
	PCIeRecoveries          uint64 `c:"pcie_recoveries"`
	PCIeCorrectable         uint64 `c:"pcie_correctable"`
	PCIeNonFatal            uint64 `c:"pcie_non_fatal"`
	PCIeFatal               uint64 `c:"pcie_fatal"`
	PCIeUnsupportedRequests uint64 `c:"pcie_unsupported_requests"`

	ECCEnabled         uint64    `c:"ecc_enabled"`
	ECCPending         uint64    `c:"ecc_pending"`
	ECCCorrected       [2]uint64 `c:"ecc_corrected"`
	ECCUncorrected     [2]uint64 `c:"ecc_uncorrected"`
	ECCSRAMCorrected   [2]uint64 `c:"ecc_sram_corrected"`
	ECCSRAMUncorrected [2]uint64 `c:"ecc_sram_uncorrected"`
	SRAMExceeded       uint64    `c:"sram_exceeded"`
	SRAMUnique         uint64    `c:"sram_unique"`
	RowsCorrected      uint64    `c:"rows_corrected"`
	RowsUncorrected    uint64    `c:"rows_uncorrected"`
	RowsPending        uint64    `c:"rows_pending"`
	RowsFailed         uint64    `c:"rows_failed"`
	RowBanks           [5]uint64 `c:"row_banks"`
	PagesCorrected     uint64    `c:"pages_corrected"`
	PagesUncorrected   uint64    `c:"pages_uncorrected"`
	PagesPending       uint64    `c:"pages_pending"`
	Recovery           uint64    `c:"recovery"`
	EventTypes         uint64    `c:"event_types"`

	Links       uint32         `c:"links"`
	LinkVersion uint32         `c:"link_version"`
	LinkMBps    uint64         `c:"link_mbps"`
	Link        [maxLinks]link `c:"link"`
	Fabric      fabric         `c:"fabric"`

	HasMIG    uint32                 `c:"has_mig"`
	MIGMode   uint32                 `c:"mig_mode"`
	MIGNext   uint32                 `c:"mig_next"`
	MIGSpare  uint32                 `c:"mig_spare"`
	Profiles  uint32                 `c:"profiles"`
	Instances uint32                 `c:"instances"`
	Profile   [maxProfiles]profile   `c:"profile"`
	Instance  [maxInstances]instance `c:"instance"`

	Processes uint32                `c:"processes"`
	Fields    uint32                `c:"fields"`
	Process   [maxProcesses]process `c:"process"`
	Field     [maxFields]field      `c:"field"`

	Samples uint64             `c:"samples"`
	Sample  [maxSamples]sample `c:"sample"`

	Updated       uint64                  `c:"updated"`
	MetricPresent [maxMetrics / 64]uint64 `c:"metric_present"`
	Metric        [maxMetrics]uint64      `c:"metric"`
}

// Kinds of event.
const (
	eventGPU = iota
	eventSystem
)

type event struct {
	Number   uint32 `c:"number"`
	Kind     uint32 `c:"kind"`
	GPU      uint32 `c:"gpu"`
	Load     uint32 `c:"load"`
	Type     uint64 `c:"type"`
	Data     uint64 `c:"data"`
	Time     uint64 `c:"time"`
	GI       uint32 `c:"gi"`
	CI       uint32 `c:"ci"`
	Severity uint32 `c:"severity"`
	LogLevel uint32 `c:"log_level"`
}

type excluded struct {
	PCI  [16]byte `c:"pci"`
	UUID [48]byte `c:"uuid"`
}

type header struct {
	Magic        uint64                `c:"magic"`
	Layout       uint32                `c:"layout"`
	Size         uint32                `c:"size"`
	Load         uint32                `c:"load"`
	LoadReserved uint32                `c:"load_reserved"`
	Head         uint32                `c:"head"`
	HeadReserved uint32                `c:"head_reserved"`
	Hang         uint32                `c:"hang"`
	InitFailure  uint32                `c:"init_failure"`
	GPUs         uint32                `c:"gpus"`
	CUDA         uint32                `c:"cuda"`
	Sentinels    uint32                `c:"sentinels"`
	Exclusions   uint32                `c:"exclusions"`
	LatencyUS    [groupCount]uint32    `c:"latency_us"`
	Driver       [32]byte              `c:"driver"`
	Library      [32]byte              `c:"library"`
	Excluded     [maxExcluded]excluded `c:"excluded"`
}

type page struct {
	header
	Event [maxEvents]event `c:"event"`
	GPU   [maxGPUs]gpu     `c:"gpu"`
}
