package nvml

import (
	"strconv"
	"time"
)

// Health is what the driver says about the fitness of one GPU. A fact names its
// source: a field is one of nvmlDeviceGetFieldValues, everything else is the
// function of nvml.h that tells it. The number behind it is the branch of the
// driver that had it first. Counters begin at the loading of the driver, unless
// they say otherwise.
type Health struct {
	Time time.Time `json:"time"` // when the facts were taken

	Recovery Maybe[RecoveryAction] `json:"recovery,omitzero"` // field 230, 570; before, a reset alone
	// What Recovery has taken the place of.
	ResetRequired         Maybe[bool] `json:"resetRequired,omitzero"`         // field 226, 560
	DrainAndResetRequired Maybe[bool] `json:"drainAndResetRequired,omitzero"` // field 227, 560: wait until nobody works, then reset

	ECC     []ECCCount  `json:"ecc,omitempty"` // one per kind, lifetime and location that the GPU counts
	ECCMode Maybe[Mode] `json:"eccMode,omitzero"`
	// SRAMThresholdExceeded: so many uncorrected errors were in the SRAM over the
	// life of the GPU that field diagnostics fail it. GetSramEccErrorStatus, 550,
	// Ampere and later; root alone may ask.
	SRAMThresholdExceeded Maybe[bool] `json:"sramThresholdExceeded,omitzero"`
	// SRAMUniqueUncorrected are the places in the SRAM with uncorrected errors.
	// GetSramUniqueUncorrectedEccErrorCounts, 580, Blackwell and later.
	SRAMUniqueUncorrected Maybe[uint64] `json:"sramUniqueUncorrected,omitzero"`

	// Rows of memory and their spares, Ampere and later; over the life of the GPU.
	RowsRemappedCorrectable   Maybe[uint64]   `json:"rowsRemappedCorrectable,omitzero"`
	RowsRemappedUncorrectable Maybe[uint64]   `json:"rowsRemappedUncorrectable,omitzero"`
	RowRemapPending           Maybe[bool]     `json:"rowRemapPending,omitzero"` // a remap waits for a reset
	RowRemapFailed            Maybe[bool]     `json:"rowRemapFailed,omitzero"`  // no spare row was left
	RowBanks                  Maybe[RowBanks] `json:"rowBanks,omitzero"`

	// Pages of memory that are not used any more, before Ampere; over the life of
	// the GPU. Fields 29 to 31.
	PagesRetiredSingleBit Maybe[uint64] `json:"pagesRetiredSingleBit,omitzero"` // for several corrected errors
	PagesRetiredDoubleBit Maybe[uint64] `json:"pagesRetiredDoubleBit,omitzero"` // for an uncorrected one
	PageRetirementPending Maybe[bool]   `json:"pageRetirementPending,omitzero"` // a page is in use until a reset

	// PerformanceState is 0 for the highest to 15 for the lowest: what a GPU does
	// slowly in a low one, it does on purpose. GetPerformanceState.
	PerformanceState Maybe[int] `json:"performanceState,omitzero"`
	// ClockReasons are why the clocks are not higher, in the order of NVML's bits;
	// an empty list: nothing holds them down. GetCurrentClocksEventReasons, 535;
	// before, GetCurrentClocksThrottleReasons.
	ClockReasons Maybe[[]ClockReason] `json:"clockReasons,omitzero"`
	// ClockTimes are for how long each reason held the clocks down, as far as that
	// is counted; in JSON in ns. Fields 74 to 77 and 79, and 269 to 271 since 575.
	ClockTimes map[ClockReason]time.Duration `json:"clockTimes,omitempty"`

	Thermal     Thermal       `json:"thermal,omitzero"`
	PCIe        PCIe          `json:"pcie,omitzero"`
	NVLinks     []NVLink      `json:"nvlinks,omitempty"` // by number; none: the GPU has none
	Fabric      Maybe[Fabric] `json:"fabric,omitzero"`   // absent on a GPU that belongs to no fabric
	MIGMode     Maybe[Mode]   `json:"migMode,omitzero"`  // GetMigMode
	Persistence Maybe[bool]   `json:"persistence,omitzero"`
}

// ECCCount is one memory-error counter.
type ECCCount struct {
	Uncorrected bool   `json:"uncorrected,omitempty"` // double-bit; otherwise corrected
	Aggregate   bool   `json:"aggregate,omitempty"`   // over the life of the GPU; otherwise since the driver was loaded
	Location    string `json:"location"`              // dram, sram; all only where the GPU does not count by location
	Count       uint64 `json:"count"`
}

// Mode is a switch of a GPU. Where the two differ, the change waits for a reset
// or a reboot.
type Mode struct {
	Current bool `json:"current"`
	Pending bool `json:"pending"`
}

// RowBanks are the banks of memory by the spare rows that each has left. They
// cannot be told of a GPU with MIG devices. GetRowRemapperHistogram, 455.
type RowBanks struct {
	Max     uint64 `json:"max"` // all of them
	High    uint64 `json:"high"`
	Partial uint64 `json:"partial"`
	Low     uint64 `json:"low"`
	None    uint64 `json:"none"` // the next fault in such a bank cannot be remapped
}

// ClockReason is something that keeps the clocks of a GPU from being higher.
type ClockReason string

// The clock reasons, in the order of the bits of nvmlClocksEventReason*.
const (
	ClockIdle         ClockReason = "idle"                // nothing runs
	ClockApplications ClockReason = "applications-clocks" // they were set so
	ClockPowerCap     ClockReason = "sw-power-cap"        // the power limit
	ClockHWSlowdown   ClockReason = "hw-slowdown"         // to half or less, by hw-thermal, hw-power-brake or a fast trigger
	ClockSyncBoost    ClockReason = "sync-boost"          // those of other GPUs are not higher
	ClockSWThermal    ClockReason = "sw-thermal"          // core or memory is above its highest operating temperature
	ClockHWThermal    ClockReason = "hw-thermal"          // too hot: to half or less
	ClockHWPowerBrake ClockReason = "hw-power-brake"      // the power supply asks for it: to half or less
	ClockDisplay      ClockReason = "display-clocks"
	ClockBoardLimit   ClockReason = "board-limit"
	ClockReliability  ClockReason = "reliability" // the voltage would not last
	// ClockThermal stands in ClockTimes alone, for either thermal reason: drivers
	// before 575 do not count them apart.
	ClockThermal ClockReason = "thermal"
)

// Thermal says how far a GPU is from being slowed down by heat, in °C. Since Ada
// limits are told as margins: that of the slowdown is the margin at which it
// comes, zero or below.
type Thermal struct {
	Margin         Maybe[float64] `json:"margin,omitzero"`         // to the highest operating temperature; GetMarginTemperature, 570
	SlowdownMargin Maybe[float64] `json:"slowdownMargin,omitzero"` // field 194, 535
	ShutdownMargin Maybe[float64] `json:"shutdownMargin,omitzero"` // field 193, 535

	Slowdown Maybe[float64] `json:"slowdown,omitzero"` // GetTemperatureThreshold
	Shutdown Maybe[float64] `json:"shutdown,omitzero"`
}

// PCIe is the link of a GPU to its node. An idle GPU lets the generation fall by
// itself: judge it where PerformanceState is 0 and ClockIdle is no reason. The
// width stays.
type PCIe struct {
	Generation       Maybe[int] `json:"generation,omitzero"`
	GenerationMax    Maybe[int] `json:"generationMax,omitzero"`    // of GPU and slot together
	GenerationMaxGPU Maybe[int] `json:"generationMaxGPU,omitzero"` // of the GPU alone; 525
	Width            Maybe[int] `json:"width,omitzero"`            // lanes
	WidthMax         Maybe[int] `json:"widthMax,omitzero"`         // of GPU and slot together

	Replays             Maybe[uint64] `json:"replays,omitzero"`             // field 94
	Recoveries          Maybe[uint64] `json:"recoveries,omitzero"`          // of the link, from L0; field 169, 525
	CorrectableErrors   Maybe[uint64] `json:"correctableErrors,omitzero"`   // field 173, 535, as those below
	NonFatalErrors      Maybe[uint64] `json:"nonFatalErrors,omitzero"`      // field 179
	FatalErrors         Maybe[uint64] `json:"fatalErrors,omitzero"`         // field 180
	UnsupportedRequests Maybe[uint64] `json:"unsupportedRequests,omitzero"` // field 181
}

// NVLink is one link of a GPU. Counters that are not told of a link, for its
// generation or the age of the driver, are absent.
type NVLink struct {
	Number int         `json:"link"`
	State  NVLinkState `json:"state,omitempty"`  // field 165; empty if the driver could not say
	Remote string      `json:"remote,omitempty"` // what is at the other end: gpu, switch, npu; GetNvLinkRemoteDeviceType, 510

	// Before NVLink 5. By link since 520; before, and data CRC always, of the first
	// twelve links alone.
	Replays       Maybe[uint64] `json:"replays,omitzero"`       // field 161
	Recoveries    Maybe[uint64] `json:"recoveries,omitzero"`    // field 162
	CRCFlitErrors Maybe[uint64] `json:"crcFlitErrors,omitzero"` // field 163
	CRCDataErrors Maybe[uint64] `json:"crcDataErrors,omitzero"` // fields 39 to 44 and 102 to 107

	// NVLink 5 and later, 560.
	ReceiveErrors    Maybe[uint64] `json:"receiveErrors,omitzero"`    // packets; field 208
	IntegrityErrors  Maybe[uint64] `json:"integrityErrors,omitzero"`  // times that local errors passed a threshold; field 211
	TransmitDiscards Maybe[uint64] `json:"transmitDiscards,omitzero"` // packets; field 212
	RecoveriesGood   Maybe[uint64] `json:"recoveriesGood,omitzero"`   // the link came back; field 213
	RecoveriesFailed Maybe[uint64] `json:"recoveriesFailed,omitzero"` // the link was declared down; field 214
	EffectiveErrors  Maybe[uint64] `json:"effectiveErrors,omitzero"`  // past error correction; field 219
	SymbolErrors     Maybe[uint64] `json:"symbolErrors,omitzero"`     // before it; field 221
}

// NVLinkState is how a link stands.
type NVLinkState string

// The states of nvml.h 13.4.
const (
	NVLinkInactive        NVLinkState = "inactive"
	NVLinkActive          NVLinkState = "active"
	NVLinkSleep           NVLinkState = "sleep"            // to save power
	NVLinkTrafficDisabled NVLinkState = "traffic-disabled" // active, and not usable
)

// Fabric is how a GPU stands with the fabric of its NVSwitches.
// GetGpuFabricInfoV, 550; before, GetGpuFabricInfo, without Conditions.
type Fabric struct {
	State  FabricState `json:"state,omitempty"` // empty: one that is not known here
	Status int         `json:"status"`          // how a completed registration went: NVML's return code, 0 is success
	Clique uint32      `json:"clique,omitempty"`
	// Health is the driver's own summary: healthy, unhealthy or limited-capacity;
	// empty before 580.
	Health string `json:"health,omitempty"`
	// Conditions are what the health mask says is so; absent if there is none.
	Conditions Maybe[[]FabricCondition] `json:"conditions,omitzero"`
}

// FabricState is how far a GPU got in being registered with its fabric.
type FabricState string

// The states of nvml.h 13.4.
const (
	FabricNotStarted FabricState = "not-started"
	FabricInProgress FabricState = "in-progress"
	FabricCompleted  FabricState = "completed"
)

// FabricCondition is something that is amiss in a fabric, or about a GPU in it.
type FabricCondition string

// The conditions, in the order of NVML_GPU_FABRIC_HEALTH_MASK_*.
const (
	FabricDegradedBandwidth   FabricCondition = "degraded-bandwidth"
	FabricRouteRecovery       FabricCondition = "route-recovery" // in progress
	FabricRouteUnhealthy      FabricCondition = "route-unhealthy"
	FabricAccessTimeout       FabricCondition = "access-timeout" // its recovery is in progress
	FabricWrongSystem         FabricCondition = "wrong-system-guid"
	FabricWrongChassis        FabricCondition = "wrong-chassis-serial"
	FabricNoPartition         FabricCondition = "no-partition"
	FabricTooFewLinks         FabricCondition = "insufficient-nvlinks"
	FabricWrongFirmware       FabricCondition = "incompatible-firmware"
	FabricWrongLocation       FabricCondition = "invalid-location"
	FabricWrongGPUState       FabricCondition = "invalid-gpu-state"
	FabricUnassigned          FabricCondition = "partition-unassigned"
	FabricManagerDisconnected FabricCondition = "manager-disconnected" // the global fabric manager
)

// RecoveryAction is what the driver asks for, in the numbers of NVML field 230.
type RecoveryAction int

// The recovery actions of nvml.h 13.4.
const (
	RecoverNone RecoveryAction = iota
	RecoverGPUReset
	RecoverNodeReboot
	RecoverDrainP2P
	RecoverDrainAndReset
	RecoverIMEXDomain
	RecoverBusReset
	RecoverSystemReboot
)

// String gives the action in words, "gpu-reset"; a number that is not known
// here is written as such.
func (a RecoveryAction) String() string {
	names := [...]string{
		"none", "gpu-reset", "node-reboot", "drain-p2p", "drain-and-reset", "recover-imex-domain", "bus-reset", "system-reboot",
	}
	if a < 0 || int(a) >= len(names) {
		return strconv.Itoa(int(a))
	}
	return names[a]
}
