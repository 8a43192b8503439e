package exporter

import (
	"errors"
	"fmt"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// Report is everything that the daemon knows of its node at one time, as the
// local API tells it. Field names are camelCase and stay.
type Report struct {
	Version   string    `json:"version"`
	GoVersion string    `json:"goVersion"`
	Started   time.Time `json:"started"` // of the daemon
	Time      time.Time `json:"time"`    // of the report
	Ready     bool      `json:"ready"`   // the GPUs were looked for
	// AcceptsUserKernelLines is true in tests only.
	AcceptsUserKernelLines bool `json:"acceptsUserKernelLines,omitempty"`

	// Scripted is true where a script stands for driver and GPUs.
	Scripted bool `json:"scripted,omitempty"`

	Snapshot *detector.Snapshot `json:"snapshot"`
	// Silent says, by PCI address, why a GPU gives no answer at present.
	Silent    map[string]string `json:"silent,omitempty"`
	NVML      *NVMLReport       `json:"nvml,omitempty"`      // absent: there is no pause
	KernelLog *KernelLogReport  `json:"kernelLog,omitempty"` // absent: none is read
	Kept      *KeptReport       `json:"kept,omitempty"`      // absent: nothing is kept
	// Configuration is absent where there is no file to look at.
	Configuration *ConfigurationReport `json:"configuration,omitempty"`
	Outputs       []OutputReport       `json:"outputs,omitempty"`
	// DRA is absent where no devices are offered.
	DRA *Allocation `json:"dra,omitempty"`
}

// KernelLogReport tells how reading the kernel log is going. Gaps and losses
// are in the snapshot's counters.
type KernelLogReport struct {
	Reading bool   `json:"reading"`
	Records uint64 `json:"records"` // since the start
	Spoofed uint64 `json:"spoofed"` // of those, that only looked like the driver's
}

// KeptReport tells how the state and the trail are doing.
type KeptReport struct {
	Saved      time.Time `json:"saved,omitzero"` // last success
	SaveError  string    `json:"saveError,omitempty"`
	TrailError string    `json:"trailError,omitempty"`
	TrailLost  uint64    `json:"trailLost"`
}

// OutputReport is how far one output has come.
type OutputReport struct {
	Name  string    `json:"name"`
	Seq   uint64    `json:"seq"` // of the last snapshot applied; 0: none yet
	At    time.Time `json:"at,omitzero"`
	Error string    `json:"error,omitempty"` // of the last attempt
}

func (e *Exporter) report() Report {
	s := &e.sources
	snapshot := s.Snapshot()
	r := Report{
		Version: s.Version, GoVersion: goVersion(), Started: e.started.UTC(), Time: time.Now().UTC(),
		Ready: snapshot.Ready(), AcceptsUserKernelLines: s.AcceptsUserLines, Scripted: s.Scripted, Snapshot: snapshot,
		Silent: silent(s.sample()),
	}
	if snapshot.Pause != nil {
		r.NVML = new(s.nvml())
	}
	if k := s.KernelLog; k != nil {
		r.KernelLog = &KernelLogReport{Reading: k.Reading(), Records: k.Records(), Spoofed: k.Spoofed()}
	}
	if s.Kept != nil {
		k := s.Kept()
		r.Kept = &KeptReport{Saved: k.Saved, SaveError: k.SaveError, TrailError: k.TrailError, TrailLost: k.TrailLost}
	}
	if s.Configuration != nil {
		r.Configuration = s.Configuration().report()
	}
	if s.Allocation != nil {
		r.DRA = new(s.Allocation())
	}
	for _, o := range s.Outputs {
		p := o.Progress()
		out := OutputReport{Name: o.Name, Seq: p.Seq, At: p.At}
		if p.Err != nil {
			out.Error = p.Err.Error()
		}
		r.Outputs = append(r.Outputs, out)
	}
	return r
}

// Undelivered says what of the snapshot has not come to where it should: devices that
// are not offered or fenced as they ought to be, and outputs whose last attempt failed.
func (r *Report) Undelivered() []string {
	var all []string
	if r.DRA != nil {
		all = r.DRA.amiss()
	}
	for _, o := range r.Outputs {
		if o.Error != "" {
			all = append(all, fmt.Sprintf("output %s: at snapshot %d of %d: %s", o.Name, o.Seq, r.Snapshot.Seq, o.Error))
		}
	}
	return all
}

// silent says why GPUs give no answer. Those of a driver that is not there, or is
// not asked, have the driver's reason, which stands elsewhere.
func silent(sample *nvml.Sample) map[string]string {
	why := map[string]string{}
	for i := range sample.GPUs {
		g := &sample.GPUs[i]
		err := g.HealthErr
		if err == nil {
			err = g.ReadingsErr
		}
		if err == nil || errors.Is(err, nvml.ErrNoDriver) || errors.Is(err, nvml.ErrPaused) || errors.Is(err, nvml.ErrStuck) {
			continue
		}
		why[g.GPU.PCI] = err.Error()
		if !g.Answered.IsZero() {
			why[g.GPU.PCI] += ", last answer at " + g.Answered.UTC().Format(time.RFC3339)
		}
	}
	return why
}
