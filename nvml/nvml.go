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
	"strconv"
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

// Maybe is a value that the driver may be unable to give. Its zero value is
// "absent".
type Maybe[T any] struct {
	Value T
	OK    bool
}

// Some is a value that is there.
func Some[T any](v T) Maybe[T] { return Maybe[T]{Value: v, OK: true} }

// Inventory is the answer to "which GPUs does this node have?".
type Inventory struct {
	DriverVersion string // as the driver writes it, "570.195.03"
	CUDAVersion   string // highest supported, "12.8"; empty if unknown
	// Load identifies this loading of the driver: another value means that
	// the driver was unloaded and loaded again. Opaque.
	Load string
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
}

// Readings are the fast numbers of one GPU. They are facts for people and
// graphs; what decides about health is in [Health].
type Readings struct {
	Time time.Time // when the batch was taken

	Temperature       Maybe[float64] // core, °C
	MemoryTemperature Maybe[float64] // °C
	Power             Maybe[float64] // W
	PowerLimit        Maybe[float64] // enforced, W
	Energy            Maybe[float64] // J since the driver was loaded

	MemoryTotal    Maybe[uint64] // bytes
	MemoryUsed     Maybe[uint64] // bytes, without what the driver reserves
	MemoryFree     Maybe[uint64] // bytes
	MemoryReserved Maybe[uint64] // bytes

	Utilization       Maybe[float64] // share of the last sample period with a kernel running, 0..1
	MemoryUtilization Maybe[float64] // share of it with the memory controller busy, 0..1

	Clocks    map[string]float64 // Hz, by domain: graphics, sm, memory, video
	MaxClocks map[string]float64 // Hz, by domain

	PCIeReplays Maybe[uint64] // since the driver was loaded
}

// Health is what the driver says about the fitness of one GPU.
type Health struct {
	Time time.Time // when the facts were taken

	Recovery Maybe[RecoveryAction] // NVML field 230, driver 570 and later

	ECC []ECCCount // one per kind, lifetime and location that the GPU counts

	RowsRemappedCorrectable   Maybe[uint64] // Ampere and later
	RowsRemappedUncorrectable Maybe[uint64]
	RowRemapPending           Maybe[bool] // a remap waits for a reset
	RowRemapFailed            Maybe[bool] // no spare row was left
}

// ECCCount is one memory-error counter.
type ECCCount struct {
	Uncorrected bool   // double-bit; otherwise corrected
	Aggregate   bool   // over the life of the GPU; otherwise since the driver was loaded
	Location    string // dram, sram; all only where the GPU does not count by location
	Count       uint64
}

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

// EventType says what a driver event is about.
type EventType string

// The event types that every supported driver knows. More may come; a consumer
// ignores what it does not know.
const (
	EventXid          EventType = "xid"            // a critical Xid; Event.Xid has the code
	EventDoubleBitECC EventType = "double-bit-ecc" // an uncorrected memory error
	EventRecovery     EventType = "recovery"       // the recovery action changed: take Health again
	EventUnavailable  EventType = "unavailable"    // the GPU became unavailable
)

// Event is one event as the driver reported it.
type Event struct {
	Type EventType
	Time time.Time // when it was received
	PCI  string    // 0000:3b:00.0
	UUID string
	Xid  int // for EventXid; 999 means that the driver itself did not know
	// The MIG instances concerned; nil if the driver did not attribute it.
	GPUInstance, ComputeInstance *int
}
