package exporter

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

//go:embed statuspage.html
var statusPageSource string

var statusPageTemplate = template.Must(template.New("status page").Parse(statusPageSource))

// status is what the page shows.
type status struct {
	Version string
	Now     time.Time
	Driver  detector.DriverState
	Pause   *detector.Pause
	Refused []string // what is wrong with what the node asks for
	Node    []detector.Condition
	// Undelivered says what has not come to where it should.
	Undelivered []string
	GPUs        []statusGPU

	Scripted bool // the GPUs are nobody's hardware
}

type statusGPU struct {
	*detector.GPUView
	Index       string
	Temperature string
	Power       string
	Utilization string
	Silent      string // why it gives no answer
	Faults      []statusFault
	Parts       []statusPart // its MIG devices
}

// statusPart is one MIG device of a GPU.
type statusPart struct {
	nvml.Instance
	Place  string
	Status detector.Status
	Faults []statusFault
}

// statusFault is a fault, and why it stays, with the command that ends it, if only a
// person does.
type statusFault struct {
	Text, Stays, Clear string
	Action             detector.Action
}

// statusPage answers with the status page: plain HTML, without scripts.
func (e *Exporter) statusPage(w http.ResponseWriter, _ *http.Request) {
	now, report := time.Now(), e.report()
	snapshot := report.Snapshot
	s := status{Version: e.sources.Version, Now: now.UTC().Truncate(time.Second), Driver: snapshot.Driver, Node: snapshot.Node}
	s.Pause, s.Refused = snapshot.Pause, snapshot.Requests.Refusals()
	s.Scripted, s.Undelivered = report.Scripted, report.Undelivered()
	for _, g := range join(snapshot, e.sources.sample(), e.sources.Freshness, now) {
		if g.view == nil {
			continue
		}
		row := statusGPU{GPUView: g.view, Index: g.index, Faults: faults(g.view, g.view.Conditions), Parts: parts(g.view)}
		if silence, ok := report.Silent[g.view.PCI]; ok && len(g.view.Conditions) == 0 {
			row.Silent = "No answer: " + silence
		}
		if g.readings {
			r := &g.sample.Readings
			row.Temperature = shown(r.Temperature, "%.0f °C", 1)
			row.Power = shown(r.Power, "%.0f W", 1)
			row.Utilization = shown(r.Utilization, "%.0f %%", 100)
		}
		s.GPUs = append(s.GPUs, row)
	}
	// Into memory first: half a page is no answer.
	var html bytes.Buffer
	if err := statusPageTemplate.Execute(&html, s); err != nil {
		http.Error(w, fmt.Sprintf("write the status page: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = html.WriteTo(w) // whoever asked has gone
}

func parts(g *detector.GPUView) []statusPart {
	var all []statusPart
	for _, i := range g.Instances {
		all = append(all, statusPart{
			Instance: i, Place: InstanceText(i.GPUInstance, &i.ComputeInstance),
			Status: g.InstanceStatus(i.GPUInstance, i.ComputeInstance),
			Faults: faults(g, g.InstanceConditions(i.GPUInstance, i.ComputeInstance)),
		})
	}
	return all
}

// faults are those to show. That nobody monitors a GPU is told for all at once.
func faults(g *detector.GPUView, conditions []detector.Condition) []statusFault {
	var all []statusFault
	for _, c := range conditions {
		if c.Reason != detector.Unmonitored {
			all = append(all, statusFault{Text: FaultText(c), Stays: Stays(c), Clear: ClearCommand(g, c.Reason), Action: c.Action})
		}
	}
	return all
}

func shown(m nvml.Maybe[float64], format string, times float64) string {
	if !m.OK {
		return ""
	}
	return fmt.Sprintf(format, m.Value*times)
}
