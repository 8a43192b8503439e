// Package nvml shows the GPUs of one node as plain Go values, through a
// narrow door.
//
// A [Driver] is the door: three questions and one stream, each of which may
// fail, hang or be refused without taking the caller with it. Nothing of a
// particular binding passes it: no handles, no return codes, no sentinel
// values. What the installed driver cannot say is absent ([Maybe] with OK
// false), never zero.
//
// GPUs are named by PCI address, written 0000:3b:00.0 in lower case: looking a
// GPU up by UUID may initialise other GPUs, a hung one among them.
package nvml

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"
)

// Errors that callers tell apart. They are wrapped with the operation and the
// GPU; ask with errors.Is.
var (
	// ErrNoDriver: no driver is loaded, or its library is not installed.
	ErrNoDriver = errors.New("no NVIDIA driver")
	// ErrLost: the GPU has fallen off the bus; the others are not concerned.
	ErrLost = errors.New("GPU is lost")
	// ErrTimeout: the driver did not answer within the deadline of the call.
	ErrTimeout = errors.New("driver did not answer in time")
	// ErrNotFound: the driver knows no GPU at this address.
	ErrNotFound = errors.New("no such GPU")
	// ErrStuck: the driver as a whole does not answer, whichever GPU it is
	// asked about.
	ErrStuck = errors.New("driver is stuck")
	// ErrPaused: nothing is asked at present, because a person wants it so.
	ErrPaused = errors.New("NVML is paused")
)

// Driver is the door to the node's GPUs. Its methods are safe for concurrent
// use, and a call about one GPU never waits for a call about another. Slices
// and maps in an answer belong to the caller. Package nvmltest holds what every
// Driver must keep to.
type Driver interface {
	// Inventory lists the driver and its GPUs in PCI order. A node whose
	// driver is loaded and which has no GPU gives an empty list and no error.
	Inventory(ctx context.Context) (Inventory, error)
	// Readings takes one batch of fast numbers of one GPU.
	Readings(ctx context.Context, pci string) (Readings, error)
	// Health takes the facts that decide whether one GPU is fit.
	Health(ctx context.Context, pci string) (Health, error)
	// Events calls emit for each driver event, in order, from one goroutine,
	// until ctx ends (nil) or the stream breaks (the cause). An event that
	// happens while nobody listens is not delivered later.
	Events(ctx context.Context, emit func(Event)) error
}

// Inventory is the answer to "which GPUs does this node have?".
type Inventory struct {
	DriverVersion string // as the driver writes it, "570.195.03"
	CUDAVersion   string // highest supported, "12.8"; empty if unknown
	// Load identifies this loading of the driver: another value means that
	// the driver was unloaded and loaded again. Opaque, and the same for every
	// process that asks.
	Load string
	// GPUs are in PCI order. One that is lost or hangs stays listed, with what
	// was known of it, for as long as the machine has something at its address.
	GPUs []GPU
}

// GPU is what does not change about a GPU while the driver is loaded.
type GPU struct {
	PCI          string `json:"pci"`                    // 0000:3b:00.0
	UUID         string `json:"uuid,omitempty"`         // GPU-…; empty if the driver could not say
	Name         string `json:"name,omitempty"`         // NVIDIA H100 80GB HBM3
	Architecture string `json:"architecture,omitempty"` // Hopper
	Serial       string `json:"serial,omitempty"`
	VBIOS        string `json:"vbios,omitempty"`
	Minor        int    `json:"minor"`                 // N of /dev/nvidiaN; -1 if unknown
	MemoryBytes  uint64 `json:"memoryBytes,omitempty"` // installed device memory; 0 if unknown

	// Brand is NVML's in the words of NVIDIA's own DRA driver: Nvidia, Tesla,
	// GeForce, NvidiaRTX; empty if unknown.
	Brand             string `json:"brand,omitempty"`
	ComputeCapability string `json:"computeCapability,omitempty"` // of CUDA, 9.0; empty if unknown
	// AddressingMode is how GPU and CPU share addresses: HMM, ATS or None. It is
	// empty if the driver could not say, as those before 580 cannot.
	AddressingMode string `json:"addressingMode,omitempty"`

	// NUMANode and PCIeRoot are where the kernel has it: near these CPUs, absent if
	// near none more than others, and below this root complex, pci0000:64; empty if
	// that is not one right below /sys/devices.
	NUMANode Maybe[int] `json:"numaNode,omitzero"`
	PCIeRoot string     `json:"pcieRoot,omitempty"`

	MIG       Maybe[bool] `json:"mig,omitzero"`        // whether it is in MIG mode; absent where it cannot be
	Instances []Instance  `json:"instances,omitempty"` // its MIG devices, by GPU instance, then by compute instance
}

// Instance is one MIG device: a compute instance within a GPU instance.
type Instance struct {
	UUID            string `json:"uuid"` // MIG-…
	GPUInstance     int    `json:"gi"`
	ComputeInstance int    `json:"ci"`
	Profile         string `json:"profile"`     // 1g.10gb, or 1c.2g.20gb for a part of a GPU instance
	MemoryBytes     uint64 `json:"memoryBytes"` // of its GPU instance
	// Start and Size are the placement of its GPU instance, in memory slices;
	// absent if the driver could not say.
	Start Maybe[int] `json:"start,omitzero"`
	Size  Maybe[int] `json:"size,omitzero"`
}

// Equal reports whether two GPUs are the same in everything that is told here.
func (g GPU) Equal(other GPU) bool {
	a, b := g, other
	a.Instances, b.Instances = nil, nil
	return reflect.DeepEqual(a, b) && slices.Equal(g.Instances, other.Instances)
}

// Readings are the fast numbers of one GPU. They are facts for people and
// graphs; what decides about health is in [Health].
type Readings struct {
	Time time.Time `json:"time"` // when the batch was taken

	Temperature       Maybe[float64] `json:"temperature,omitzero"`       // core, °C
	MemoryTemperature Maybe[float64] `json:"memoryTemperature,omitzero"` // °C
	Power             Maybe[float64] `json:"power,omitzero"`             // W
	PowerLimit        Maybe[float64] `json:"powerLimit,omitzero"`        // enforced, W
	Energy            Maybe[float64] `json:"energy,omitzero"`            // J since the driver was loaded

	MemoryTotal    Maybe[uint64] `json:"memoryTotal,omitzero"`    // bytes
	MemoryUsed     Maybe[uint64] `json:"memoryUsed,omitzero"`     // bytes, without what the driver reserves
	MemoryFree     Maybe[uint64] `json:"memoryFree,omitzero"`     // bytes
	MemoryReserved Maybe[uint64] `json:"memoryReserved,omitzero"` // bytes

	Utilization       Maybe[float64] `json:"utilization,omitzero"`       // share of the last sample period with a kernel running, 0..1
	MemoryUtilization Maybe[float64] `json:"memoryUtilization,omitzero"` // share of it with the memory controller busy, 0..1

	Clocks    map[string]float64 `json:"clocks,omitempty"`    // Hz, by domain: graphics, sm, memory, video
	MaxClocks map[string]float64 `json:"maxClocks,omitempty"` // Hz, by domain

	PCIeReplays Maybe[uint64] `json:"pcieReplays,omitzero"` // since the driver was loaded
}

// EventType says what a driver event is about.
type EventType string

// The event types. Which of them a driver tells depends on its age; more may
// come, and a consumer ignores what it does not know.
const (
	EventXid              EventType = "xid"                    // a critical Xid; Event.Xid has the code
	EventSingleBitECC     EventType = "single-bit-ecc"         // a corrected memory error
	EventSingleBitStorm   EventType = "single-bit-ecc-storm"   // many of them
	EventDoubleBitECC     EventType = "double-bit-ecc"         // an uncorrected memory error
	EventRetirement       EventType = "dram-retirement"        // a page or row was retired
	EventRetirementFailed EventType = "dram-retirement-failed" // there was none left to retire to
	EventContainedPoison  EventType = "contained-poison"       // poisoned data was read, and only its reader ended
	EventFatalPoison      EventType = "fatal-poison"           // poisoned data got out
	EventUnavailable      EventType = "unavailable"            // the GPU became unavailable
	EventRecovery         EventType = "recovery"               // the recovery action changed: take Health again
	EventMIGConfiguration EventType = "mig-configuration"      // MIG devices were made or removed: take the inventory again
	EventBind             EventType = "bind"                   // the driver was bound to the GPU: take the inventory again
	EventUnbind           EventType = "unbind"                 // the driver was unbound from the GPU, which leaves the inventory
	// EventOperational is the structured form, in Event.Operational. What happened
	// is mostly told as one of the others too, and neither waits for the other.
	EventOperational EventType = "operational"
)

// Event is one event as the driver reported it.
type Event struct {
	Type EventType `json:"type"`
	Time time.Time `json:"time"` // when it was received
	PCI  string    `json:"pci"`  // 0000:3b:00.0
	UUID string    `json:"uuid,omitempty"`
	Xid  int       `json:"xid,omitempty"` // for EventXid, and for EventOperational if it has one; 999 means that the driver itself did not know
	// The MIG instances concerned; nil if the driver did not attribute it.
	GPUInstance     *int `json:"gi,omitempty"`
	ComputeInstance *int `json:"ci,omitempty"`

	Operational *Operational `json:"operational,omitempty"` // for EventOperational alone
}

// Operational is what a GPU operational event says, as far as nvml.h 13.4 gives
// it a meaning. It has no text.
type Operational struct {
	Severity string `json:"severity"` // informational, corrected, recoverable, fatal; a number if it is not known here
	Level    string `json:"level"`    // of the log: telemetry, diagnostic, notice, warning, error; or a number
	Module   string `json:"module"`   // of the driver, RM
	Code     uint32 `json:"code"`     // of the module
	Category uint32 `json:"category,omitempty"`
	// Attributes are what holds of it: uncontained, latent, propagated,
	// component-reset, threshold-exceeded, primary (in its group), overflow (events
	// before it were dropped).
	Attributes []string `json:"attributes,omitempty"`
}
