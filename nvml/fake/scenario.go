package fake

import (
	"time"

	"gpuvet.dev/nvml"
)

// Scenario is a node with its GPUs and what happens to them. [Load] and
// [Decode] read one from YAML; tests may write it down directly.
type Scenario struct {
	Driver   DriverInfo
	GPUs     []GPU  // in PCI order; steps name them by index
	Timeline []Step // in any order: played by At
	// Repeat is how long one round of the timeline lasts. 0: it is played once.
	Repeat time.Duration
}

// DriverInfo is what the scripted driver says of itself.
type DriverInfo struct {
	Version string // "570.195.03"; before 570 there is no recovery action
	CUDA    string // "12.8"
	Absent  bool   // not loaded at the start

	// What follows shows in the library alone, see package fakelib.

	Library   string // version of the library on the disk; empty: that of the driver
	Sentinels bool   // what is absent is told as all ones or NaN, not as not supported
	Latency   Latency
	Excluded  []Excluded
}

// GPU is one scripted GPU.
type GPU struct {
	nvml.GPU
	Start Values // as the driver is made
	Model Model
}

// Quantity names a reading that a script can set.
type Quantity string

// The quantities, by their names in a scenario file.
const (
	Temperature       Quantity = "temperature"       // °C
	MemoryTemperature Quantity = "memoryTemperature" // °C
	Power             Quantity = "power"             // W
	PowerLimit        Quantity = "powerLimit"        // W
	Utilization       Quantity = "utilization"       // 0..1
	MemoryUtilization Quantity = "memoryUtilization" // 0..1
	MemoryUsed        Quantity = "memoryUsed"        // bytes
	MemoryReserved    Quantity = "memoryReserved"    // bytes
	PCIeReplays       Quantity = "pcieReplays"       // count; 0 again when the driver is loaded
	// Wave is how far power and the utilisations swing around their values, as
	// a share of them: 0 holds them still.
	Wave Quantity = "wave"
)

// Values are quantities with their values. An absent value (OK false) is one
// that the driver cannot give; a quantity that is not in the map stays as it
// is.
type Values map[Quantity]nvml.Maybe[float64]

// Step is one thing that happens.
type Step struct {
	At  time.Duration // since the round began
	GPU int           // index in Scenario.GPUs; unused by actions that concern the node
	// All is every GPU in place of one. A hang of all is one of the driver: the
	// inventory hangs too.
	All bool
	Do  Action
}

// Action is what a [Step] does: one of the types below.
type Action interface{ do(d *Driver, gpu int) }

// Xid is an error that the driver reports: a kernel line and an NVML event.
// The driver also changes its recovery action where the code demands one,
// and tells that change by an Xid 154 line and an event.
type Xid struct {
	Code     int
	PID      int    // 0: unknown
	Process  string // empty: unknown
	Text     string // in place of the driver's usual message
	Recovery nvml.Maybe[nvml.RecoveryAction]
	// The MIG instances concerned; nil if not attributed.
	GPUInstance, ComputeInstance *int
}

// Lost makes the GPU fall off the bus (true) or come back (false). The kernel
// line and the event of it are Xid 79: another step.
type Lost bool

// Missing takes the GPU out of the inventory (true) or puts it back (false).
type Missing bool

// Bound unbinds the driver from the GPU (false), which takes it out of the
// inventory while it stays plugged in, or binds it again (true), and tells so by
// an event. A loading of the driver binds all.
type Bound bool

// Hang makes calls about the GPU wait until the time is over, or until their
// context ends. 0 ends a hang.
type Hang time.Duration

// Uninterruptible is a hang that not even the end of its process ends, as far as
// that can be played: see package fakelib. For a [Driver] it is a [Hang].
type Uninterruptible time.Duration

// Fail makes calls about the GPU fail for a time, or, if that is 0, until the
// driver is loaded again. An empty failure ends it.
type Fail struct {
	With Failure
	For  time.Duration
}

// FailInit makes the library fail to begin. Who has begun is not concerned.
type FailInit Fail

// Event is an event of which the driver says no more than its type.
type Event struct {
	Type                         nvml.EventType
	GPUInstance, ComputeInstance *int
}

// MIG cuts the GPU anew, see [GPU.Cut], and tells so by an event. It lasts over
// a reload.
type MIG struct {
	Enabled  bool
	Profiles []string
}

// Set gives quantities new values at once.
type Set Values

// Ramp leads quantities to new values in a straight line.
type Ramp struct {
	To   Values
	Over time.Duration
}

// Recovery is the recovery action that the driver asks for from now on.
type Recovery nvml.RecoveryAction

// ECC counts memory errors, in the volatile and the aggregate counters. An
// uncorrected one is an event.
type ECC struct {
	Corrected, Uncorrected uint64
	Location               string // dram (also if empty) or sram
}

// RemapPending says whether a row remap waits for a reset.
type RemapPending bool

// RemapFailed says whether a row could not be remapped.
type RemapFailed bool

// RowsRemapped counts remapped rows.
type RowsRemapped struct{ Correctable, Uncorrectable uint64 }

// Kernel is a line in the kernel log.
type Kernel string

// Reload unloads the driver and loads it again: event streams break, the
// inventory has another Load, lost and hung GPUs answer again, a pending row
// remap is done, nothing needs recovery, and what counts since loading counts
// from zero. Temperatures, memory and work stay as they are, processes do not.
// With a version, it is another driver that is loaded, and its library with it.
type Reload struct{ Version, CUDA string }

// Present loads the driver (true) or unloads it (false).
type Present bool
