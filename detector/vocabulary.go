package detector

import "slices"

// Class says whose fault it is.
type Class string

// The classes. An application fault never taints, never evicts and never
// excuses a failed run: untrusted code can raise it at will.
const (
	Application Class = "application"
	Hardware    Class = "hardware"
	Link        Class = "link"
	Driver      Class = "driver"
	Fabric      Class = "fabric"
	Information Class = "information"
)

// Scope says what a fault makes unfit.
type Scope string

// The scopes, from narrow to wide.
const (
	ScopeWorkload Scope = "workload"
	ScopeInstance Scope = "instance"
	ScopeGPU      Scope = "gpu"
	ScopeNode     Scope = "node"
)

// Effect says what a fault does to scheduling.
type Effect string

// The effects, from mild to hard.
const (
	NoEffect   Effect = ""
	None       Effect = "None"
	NoSchedule Effect = "NoSchedule"
	NoExecute  Effect = "NoExecute"
)

// Fences reports whether the effect keeps new work away.
func (e Effect) Fences() bool { return e == NoSchedule || e == NoExecute }

// Harder reports whether e is harder than other.
func (e Effect) Harder(other Effect) bool { return e.rank() > other.rank() }

func (e Effect) rank() int {
	switch e {
	case NoExecute:
		return 3
	case NoSchedule:
		return 2
	case None:
		return 1
	case NoEffect:
	}
	return 0
}

// Action is advice to people.
type Action string

// The actions.
const (
	ActNone           Action = "none"
	ActWatch          Action = "watch"
	ActRestartApp     Action = "restart-app"
	ActResetGPU       Action = "reset-gpu"
	ActDrainAndReset  Action = "drain-and-reset"
	ActDrainP2P       Action = "drain-p2p"
	ActRebootNode     Action = "reboot-node"
	ActCheckHardware  Action = "check-hardware"
	ActUpdateSoftware Action = "update-software"
	ActContactSupport Action = "contact-support"
)

// Remedy is the strongest of the actions that several faults ask for: a reset is
// no remedy for a GPU that also asks for a reboot. Nothing is left to be drained where
// the driver itself asks for the reset.
func Remedy(conditions []Condition) Action {
	rank := []Action{
		ActNone, ActWatch, ActRestartApp, ActUpdateSoftware, ActDrainP2P, ActResetGPU, ActDrainAndReset, ActRebootNode,
		ActCheckHardware, ActContactSupport,
	}
	strongest := 0
	for _, c := range conditions {
		strongest = max(strongest, slices.Index(rank, c.Action))
	}
	asked := func(c Condition) bool { return c.Reason == ResetRequired && c.Fact != "" && c.Action == ActResetGPU }
	if rank[strongest] == ActDrainAndReset && slices.ContainsFunc(conditions, asked) {
		return ActResetGPU
	}
	return rank[strongest]
}

// Status is the answer to "is this GPU fit?".
type Status string

// The statuses. A GPU whose readings are older than their freshness is Unknown,
// never Healthy.
const (
	Healthy   Status = "Healthy"
	Degraded  Status = "Degraded"
	Unhealthy Status = "Unhealthy"
	Unknown   Status = "Unknown"
)

// TaintKey is a device taint key without its domain, gpuvet.dev/<key>.
type TaintKey string

// The keys.
const (
	TaintLost           TaintKey = "lost"
	TaintResetRequired  TaintKey = "reset-required"
	TaintRebootRequired TaintKey = "reboot-required"
	TaintMemory         TaintKey = "memory"
	TaintLink           TaintKey = "link"
	TaintThermal        TaintKey = "thermal"
	TaintUnresponsive   TaintKey = "unresponsive"
	TaintUnmonitored    TaintKey = "unmonitored"
)

// Reason names a fault. A reason never changes once released: it is a taint
// value, a label value and a word that people search for.
type Reason string

// The reasons of faults that fence.
const (
	GPULost             Reason = "GPULost"
	ResetRequired       Reason = "ResetRequired"
	RebootRequired      Reason = "RebootRequired"
	UncorrectableMemory Reason = "UncorrectableMemory"
	RowRemapFailed      Reason = "RowRemapFailed"
	SRAMThreshold       Reason = "SRAMThreshold"
	LinkFault           Reason = "LinkFault"
	ThermalFault        Reason = "ThermalFault"
	Unresponsive        Reason = "Unresponsive"
	DriverFault         Reason = "DriverFault"
	DriverStuck         Reason = "DriverStuck"
	FabricFault         Reason = "FabricFault"
	FabricNotReady      Reason = "FabricNotReady" // the GPU is not registered with its NVLink fabric
	FabricRefused       Reason = "FabricRefused"  // its registration failed
)

// The reasons of faults that are told and do not fence.
const (
	RowRemapPending      Reason = "RowRemapPending"
	ContainedMemoryError Reason = "ContainedMemoryError"
	HardwareWarning      Reason = "HardwareWarning"
	LinkWarning          Reason = "LinkWarning"
	LinkUnstable         Reason = "LinkUnstable"
	LinkDown             Reason = "LinkDown"
	PCIeDegraded         Reason = "PCIeDegraded"
	ThermalSlowdown      Reason = "ThermalSlowdown"
	PowerBrake           Reason = "PowerBrake"
	RetirementPending    Reason = "RetirementPending"
	CorrectedErrors      Reason = "CorrectedErrors"   // of memory, too many
	UncorrectedErrors    Reason = "UncorrectedErrors" // of memory, by their counter alone
	PCIeErrors           Reason = "PCIeErrors"
	FabricDegraded       Reason = "FabricDegraded"
	DriverWarning        Reason = "DriverWarning"
	SuspectedByTenants   Reason = "SuspectedByTenants" // by application faults of several tenants
	FabricWarning        Reason = "FabricWarning"
	ApplicationFault     Reason = "ApplicationFault"
	Unmonitored          Reason = "Unmonitored" // no fault: nobody looks at the GPU, as somebody wants it so
)
