package fake

import (
	"maps"
	"slices"
	"time"

	"gpuvet.dev/nvml"
)

// Detail is what is scripted of a GPU that [nvml.Driver] has no question for:
// the library alone tells it.
type Detail struct {
	Processes []Process
	Fields    []Field
	Metrics   map[int]nvml.Maybe[float64] // by NVML_GPM_METRIC_*, in its unit; others follow the utilisation
	Throttle  ThrottleReasons
	PCIe      PCIe
	NVLinks   []NVLink // by number
	Fabric    Fabric
	Retired   nvml.Maybe[RetiredPages] // GPUs before Ampere retire pages
}

func (d Detail) clone() Detail {
	d.Processes, d.Fields, d.NVLinks = slices.Clone(d.Processes), slices.Clone(d.Fields), slices.Clone(d.NVLinks)
	d.Metrics = maps.Clone(d.Metrics)
	return d
}

func newDetail(m Model) Detail {
	d := Detail{PCIe: m.PCIe, Metrics: map[int]nvml.Maybe[float64]{}}
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

// NVLink is one link. As an action it sets the state, unless empty, of the link
// with this number, and adds to its counters.
type NVLink struct {
	Number                         int
	State                          string // active, inactive or sleep
	Replays, Recoveries, CRCErrors uint64
}

// Fabric is how the GPU stands with the fabric manager.
type Fabric struct {
	State     string // empty: it has none; not-started, in-progress or completed
	Status    Failure
	Clique    int
	Unhealthy []string // degraded-bandwidth, route-recovery, route-unhealthy, access-timeout
}

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

func (r ThrottleReasons) do(d *Driver, gpu int) { d.gpus[gpu].detail.Throttle = r }

func (p PCIe) do(d *Driver, gpu int) { d.gpus[gpu].detail.PCIe = p }

func (l NVLink) do(d *Driver, gpu int) {
	links := d.gpus[gpu].detail.NVLinks
	if l.Number < 0 || l.Number >= len(links) {
		return
	}
	link := &links[l.Number]
	if l.State != "" {
		link.State = l.State
	}
	link.Replays += l.Replays
	link.Recoveries += l.Recoveries
	link.CRCErrors += l.CRCErrors
}

func (f Fabric) do(d *Driver, gpu int) { d.gpus[gpu].detail.Fabric = f }

func (r RetiredPages) do(d *Driver, gpu int) { d.gpus[gpu].detail.Retired = nvml.Some(r) }

func (l Latency) do(d *Driver, _ int) { maps.Copy(d.latency, l) }

func (l Library) do(d *Driver, _ int) { d.info.Library = string(l) }
