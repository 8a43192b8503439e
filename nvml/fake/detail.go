package fake

import (
	"maps"
	"slices"
	"time"

	"gpuvet.dev/nvml"
)

// Detail is what is scripted of a GPU beside its readings and its memory errors.
type Detail struct {
	// For these [nvml.Driver] has no question: the library alone tells them.
	Processes []Process
	Fields    []Field
	Metrics   map[int]nvml.Maybe[float64] // by NVML_GPM_METRIC_*, in its unit; others follow the utilisation

	PerformanceState nvml.Maybe[int]
	Throttle         ThrottleReasons
	PCIe             PCIe // as it is
	PCIeMax          PCIe // the most of GPU and slot together
	PCIeErrors       PCIeErrors
	NVLinks          []NVLink // by number
	Fabric           Fabric
	ECCMode          nvml.Mode
	SRAM             SRAM
	RowBanks         nvml.Maybe[nvml.RowBanks] // absent: as the remapped rows have it
	Retired          nvml.Maybe[RetiredPages]  // GPUs before Ampere retire pages
	MIGPending       bool                      // the MIG mode that comes with the next loading
	Persistence      bool
}

func (d Detail) clone() Detail {
	d.Processes, d.Fields, d.NVLinks = slices.Clone(d.Processes), slices.Clone(d.Fields), slices.Clone(d.NVLinks)
	d.Metrics = maps.Clone(d.Metrics)
	return d
}

func newDetail(m Model) Detail {
	d := Detail{
		PCIe: m.PCIe, PCIeMax: m.PCIe, Metrics: map[int]nvml.Maybe[float64]{}, PerformanceState: nvml.Some(0),
		ECCMode: nvml.Mode{Current: true, Pending: true}, Persistence: true,
	}
	for range m.NVLink.Count {
		d.NVLinks = append(d.NVLinks, NVLink{State: "active"})
	}
	if m.Fabric {
		d.Fabric.State = "completed"
	}
	return d
}

// Process is one that uses a GPU.
type Process struct {
	PID                            int
	Name                           string
	Kind                           string             // compute (also if empty), graphics or mps
	Memory                         nvml.Maybe[uint64] // bytes
	Utilization, MemoryUtilization float64            // 0..1
	GPUInstance, ComputeInstance   *int
}

// Field is a field value: what nvmlDeviceGetFieldValues answers for an id and a
// scope, in place of what it would say.
type Field struct {
	ID, Scope int
	Type      string // uint, ulong, ulonglong (also if empty), longlong, int, ushort or double
	Bits      uint64 // the value, as it stands in memory
	Failure   Failure
}

// ThrottleReasons are what holds the clocks down, in the bits of
// nvmlClocksEventReason*.
type ThrottleReasons uint64

// PCIeMax is the most that GPU and slot can do together.
type PCIeMax PCIe

// PCIeErrors count what went wrong on a PCIe link. As an action they are added.
type PCIeErrors struct {
	Recoveries, Correctable, NonFatal, Fatal, UnsupportedRequests uint64
}

// NVLink is one link. As an action it sets the state, unless empty, of the link
// with this number, and adds to its counters.
type NVLink struct {
	Number int
	State  string // active, inactive, sleep or traffic-disabled

	Recoveries uint64

	Replays, CRCErrors, CRCDataErrors uint64 // before NVLink 5

	ReceiveErrors, IntegrityErrors, TransmitDiscards, RecoveriesFailed, EffectiveErrors, SymbolErrors uint64 // since then
}

func (l *NVLink) add(more NVLink) {
	if more.State != "" {
		l.State = more.State
	}
	l.Recoveries += more.Recoveries
	l.Replays += more.Replays
	l.CRCErrors += more.CRCErrors
	l.CRCDataErrors += more.CRCDataErrors
	l.ReceiveErrors += more.ReceiveErrors
	l.IntegrityErrors += more.IntegrityErrors
	l.TransmitDiscards += more.TransmitDiscards
	l.RecoveriesFailed += more.RecoveriesFailed
	l.EffectiveErrors += more.EffectiveErrors
	l.SymbolErrors += more.SymbolErrors
}

// Fabric is how the GPU stands with the fabric manager.
type Fabric struct {
	State     string // empty: it has none; not-started, in-progress or completed
	Status    Failure
	Clique    int
	Unhealthy []string // as [nvml.FabricCondition]
	Summary   string   // healthy, unhealthy or limited-capacity; empty: as Unhealthy has it
}

// SRAM is what is known of errors in the SRAM beside their number.
type SRAM struct {
	ThresholdExceeded bool
	UniqueUncorrected uint64 // places
}

// PerformanceState is 0 to 15 from now on, or what the driver cannot say.
type PerformanceState nvml.Maybe[int]

// ECCMode is the ECC mode: the current one, and the one that comes with the next
// loading of the driver. A GPU without ECC counts no errors.
type ECCMode nvml.Mode

// MIGPending is the MIG mode that comes with the next loading of the driver.
type MIGPending bool

// Persistence says whether the GPU stays initialised while nobody uses it.
type Persistence bool

// RowBanks are the banks of memory by their spare rows from now on.
type RowBanks nvml.RowBanks

// RetiredPages counts pages of memory that are not used any more.
type RetiredPages struct {
	Corrected, Uncorrected uint64 // by the errors that they had
	Pending                bool
}

// CallGroup names functions of the library that take about the same time.
type CallGroup string

// CallGroups are all of them.
func CallGroups() []CallGroup {
	return []CallGroup{
		"init", "lookup", "identity", "readings", "health", "fields", "links", "processes", "samples", "gpm", "mig", "events",
	}
}

// Excluded is a GPU that the driver leaves alone.
type Excluded struct{ PCI, UUID string }

// Processes are those that use the GPU from now on.
type Processes []Process

// Fields are field values from now on, beside those of before. One with the
// type "none" is as if it had never been scripted.
type Fields []Field

// Metrics are GPM metrics from now on, beside those of before.
type Metrics map[int]nvml.Maybe[float64]

// Latency is how long calls of the library take.
type Latency map[CallGroup]time.Duration

// Library is the version of the library on the disk, as after an upgrade of the
// packages: who loads it anew finds that it does not fit the loaded driver.
type Library string

func (p Processes) do(d *Driver, gpu int) { d.gpus[gpu].detail.Processes = p }

func (f Fields) do(d *Driver, gpu int) {
	detail := &d.gpus[gpu].detail
	for _, field := range f {
		detail.Fields = slices.DeleteFunc(detail.Fields, func(old Field) bool { return old.ID == field.ID && old.Scope == field.Scope })
		if field.Type != "none" {
			detail.Fields = append(detail.Fields, field)
		}
	}
}

func (m Metrics) do(d *Driver, gpu int) { maps.Copy(d.gpus[gpu].detail.Metrics, m) }

func (r ThrottleReasons) do(d *Driver, gpu int) {
	d.gpus[gpu].meter(time.Now())
	d.gpus[gpu].detail.Throttle = r
}

func (p PerformanceState) do(d *Driver, gpu int) {
	d.gpus[gpu].detail.PerformanceState = nvml.Maybe[int](p)
}

func (p PCIe) do(d *Driver, gpu int) { d.gpus[gpu].detail.PCIe = p }

func (p PCIeMax) do(d *Driver, gpu int) { d.gpus[gpu].detail.PCIeMax = PCIe(p) }

func (e PCIeErrors) do(d *Driver, gpu int) {
	errors := &d.gpus[gpu].detail.PCIeErrors
	errors.Recoveries += e.Recoveries
	errors.Correctable += e.Correctable
	errors.NonFatal += e.NonFatal
	errors.Fatal += e.Fatal
	errors.UnsupportedRequests += e.UnsupportedRequests
}

func (l NVLink) do(d *Driver, gpu int) {
	if links := d.gpus[gpu].detail.NVLinks; l.Number >= 0 && l.Number < len(links) {
		links[l.Number].add(l)
	}
}

func (f Fabric) do(d *Driver, gpu int) { d.gpus[gpu].detail.Fabric = f }

func (m ECCMode) do(d *Driver, gpu int) { d.gpus[gpu].detail.ECCMode = nvml.Mode(m) }

func (s SRAM) do(d *Driver, gpu int) { d.gpus[gpu].detail.SRAM = s }

func (b RowBanks) do(d *Driver, gpu int) { d.gpus[gpu].detail.RowBanks = nvml.Some(nvml.RowBanks(b)) }

func (p MIGPending) do(d *Driver, gpu int) { d.gpus[gpu].detail.MIGPending = bool(p) }

func (p Persistence) do(d *Driver, gpu int) { d.gpus[gpu].detail.Persistence = bool(p) }

func (r RetiredPages) do(d *Driver, gpu int) { d.gpus[gpu].detail.Retired = nvml.Some(r) }

func (l Latency) do(d *Driver, _ int) { maps.Copy(d.latency, l) }

func (l Library) do(d *Driver, _ int) { d.info.Library = string(l) }
