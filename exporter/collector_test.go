package exporter

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestExpositionIsTheGoldenOne(t *testing.T) {
	type test struct {
		name string
		node func() *node
	}
	tests := []test{
		{"healthy", func() *node { return healthyNode(1) }},
		{"no-driver", noDriver},
		{"troubled", troubledNode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newTestExporter(tt.node())
				e.ObserveCall("kubernetes", "patch-node", 30*time.Millisecond, nil)
				e.ObserveCall("kubernetes", "patch-node", 3*time.Second, errors.New("conflict"))
				got := strings.ReplaceAll(text(t, e.ours(t)), runtime.Version(), "go1.x")
				golden(t, filepath.Join("testdata", tt.name+".prom"), got)
			})
		})
	}
}

// troubledNode has a GPU of every kind of trouble.
func troubledNode() *node {
	n := healthyNode(4)
	now := time.Now()
	s := n.snapshot
	s.GPUs[1].Status = detector.Degraded
	s.GPUs[1].Conditions = []detector.Condition{
		{Reason: detector.RowRemapPending, Class: detector.Hardware, Action: detector.ActDrainAndReset, Cause: "a row remap waits for a reset"},
		{Reason: detector.ApplicationFault, Class: detector.Application, Action: detector.ActRestartApp, Cause: "Xid 31"},
	}
	s.GPUs[1].Xids = []detector.XidCount{{Code: 31, Count: 4, Last: now.Add(-time.Hour)}, {Code: 69, Count: 1, Last: now.Add(-time.Minute)}}
	n.sample.GPUs[1].Health.RowRemapPending = nvml.Some(true)
	n.sample.GPUs[1].Health.Recovery = nvml.Some(nvml.RecoverDrainAndReset)
	n.lose(2)
	n.age(3, time.Minute)
	s.GPUs = append(s.GPUs, detector.GPUView{
		PCI: "0000:db:00.0", Status: detector.Unhealthy,
		Conditions: []detector.Condition{{Reason: detector.DriverFault, Class: detector.Driver, Effect: detector.NoSchedule}},
		Xids:       []detector.XidCount{{Code: 119, Count: 1, Last: now.Add(-time.Minute)}},
	})
	s.Node = []detector.Condition{{Reason: detector.FabricFault, Class: detector.Fabric, Effect: detector.NoSchedule, Cause: "SXid 20034"}}
	s.Counters.Gaps, s.Counters.Lost = 1, 333
	n.sources.KernelLog = kernelLog{records: 5, spoofed: 2}
	n.sources.AcceptsUserLines = true
	n.sources.Kept = func() detector.Kept { return detector.Kept{SaveError: "no space left on device", TrailLost: 3} }
	n.sources.Outputs = append(n.sources.Outputs, Output{Name: "dra", Progress: func() Progress { return Progress{Err: errors.New("no API server")} }})
	return n
}

func noDriver() *node {
	n := healthyNode(0)
	n.snapshot.Driver = detector.DriverState{Missing: "no NVIDIA driver", Asked: true}
	n.sample.InventoryErr = nvml.ErrNoDriver
	return n
}

// age makes the last answer of a GPU older, as if it timed out ever since.
func (n *node) age(i int, by time.Duration) {
	s := &n.sample.GPUs[i]
	at := time.Now().Add(-by)
	s.ReadingsAnswered, s.HealthAnswered, s.Answered = at, at, at
	s.ReadingsErr, s.HealthErr = nvml.ErrTimeout, nvml.ErrTimeout
	n.snapshot.GPUs[i].Status, n.snapshot.GPUs[i].Fresh = detector.Unknown, false
}

func TestNamesAndHelpPassTheLinter(t *testing.T) {
	n := troubledNode()
	e := newTestExporter(n)
	e.ObserveCall("nvml", "inventory", time.Millisecond, nil)
	problems, err := promlint.NewWithMetricFamilies(e.ours(t)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestPromtoolAcceptsTheExposition(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("GPUVET_REQUIRE") == "all" {
			t.Fatal("promtool is required: ", err)
		}
		t.Skip("promtool is not installed: ", err)
	}
	e := newTestExporter(troubledNode())
	e.ObserveCall("nvml", "inventory", time.Millisecond, nil)
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text(t, e.ours(t)))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestEveryFamilyHasARow(t *testing.T) {
	for f, r := range table {
		if r.name == "" || !strings.HasSuffix(r.help, ".") {
			t.Errorf("row %d: name %q, help %q: want a name, and a sentence", f, r.name, r.help)
		}
		if r.ours && !r.counter {
			t.Errorf("%s begins at zero and is no counter", r.name)
		}
	}
}

func TestNewInventoryLeavesNoDeadSeries(t *testing.T) {
	n := healthyNode(3)
	c := newCollector(n.sources, time.Now())
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	whole := scrape(t, registry)

	n2 := healthyNode(2)
	n.snapshot, n.sample = n2.snapshot, n2.sample
	n.snapshot.GPUs[0].UUID, n.sample.GPUs[0].GPU.UUID = "GPU-other", "GPU-other"
	n.snapshot.Driver.Version = "580.1"
	smaller := scrape(t, registry)
	if diff := cmp.Diff(scrape(t, freshRegistry(n)), smaller); diff != "" {
		t.Errorf("a collector that saw the old inventory (-new +old collector):\n%s", diff)
	}
	if len(c.known) != len(smaller) {
		t.Errorf("%d series are kept for %d", len(c.known), len(smaller))
	}

	n3 := healthyNode(3)
	n.snapshot, n.sample = n3.snapshot, n3.sample
	if diff := cmp.Diff(whole, scrape(t, registry)); diff != "" {
		t.Errorf("after the old inventory came back (-want +got):\n%s", diff)
	}
}

func TestSeriesAreMadeOnce(t *testing.T) {
	c := newCollector(healthyNode(2).sources, time.Now())
	first := c.write()
	second := c.write()
	if len(first) != len(second) {
		t.Fatalf("%d series, then %d", len(first), len(second))
	}
	for i := range first {
		if first[i].series != second[i].series {
			t.Errorf("%s was made again", first[i].series.desc)
		}
	}
}

func TestConcurrentScrapesOfAChangingNodeAreEachWhole(t *testing.T) {
	nodes := make([]*node, 4)
	for i := range nodes {
		nodes[i] = healthyNode(i + 1)
		nodes[i].snapshot.Seq = uint64(i)
	}
	var current atomic.Int64
	s := nodes[0].sources
	s.Snapshot = func() *detector.Snapshot { return nodes[current.Add(1)%4].snapshot }
	s.Sample = func() *nvml.Sample { return nil }
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(s, time.Now()))
	var scrapers sync.WaitGroup
	for range 4 {
		scrapers.Go(func() {
			for range 50 {
				families, err := registry.Gather()
				if err != nil {
					t.Error(err)
					return
				}
				seq := int(snapshotSequence.of(families)[0].GetGauge().GetValue())
				if gpus := len(gpuUp.of(families)); gpus != seq+1 {
					t.Errorf("snapshot %d shows %d GPUs", seq, gpus)
				}
			}
		})
	}
	scrapers.Wait()
}

func TestHostileLabelValuesAreEscaped(t *testing.T) {
	n := healthyNode(1)
	name := "quote \" backslash \\ newline \n tab \t Grüße 日本 \u202e"
	n.snapshot.GPUs[0].Name = name
	n.snapshot.GPUs[0].Serial = "\xff\xfe"
	e := newTestExporter(n)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text(t, e.ours(t))))
	if err != nil {
		t.Fatal(err)
	}
	info := families[table[gpuInfo].name].GetMetric()[0]
	if got := label(info, "name"); got != name {
		t.Errorf("name is read as %q, want %q", got, name)
	}
	if got := label(info, "serial"); got != "\uFFFD" {
		t.Errorf("serial is read as %q", got)
	}
}

func TestCreatedTimestampsAreThoseThatWeKnow(t *testing.T) {
	n := healthyNode(1)
	n.snapshot.Counters.Gaps = 1
	e := newTestExporter(n)
	for _, f := range e.ours(t) {
		for _, m := range f.GetMetric() {
			if m.Counter == nil || f.GetName() == "gpuvet_call_errors_total" {
				continue
			}
			known := slices.ContainsFunc(table[:], func(r row) bool { return r.name == f.GetName() && r.ours })
			if got := m.Counter.CreatedTimestamp; (got != nil) != known {
				t.Errorf("%s was created at %v, known: %v", f.GetName(), got, known)
			} else if known && !got.AsTime().Equal(e.started) {
				t.Errorf("%s was created at %v, want %v", f.GetName(), got.AsTime(), e.started)
			}
		}
	}
}

// testExporter is an exporter that can be asked without HTTP.
type testExporter struct{ *Exporter }

func newTestExporter(n *node) testExporter { return testExporter{New(n.sources)} }

// ours gathers all that is not the Go runtime's and the process's, with every
// check that the library has.
func (e testExporter) ours(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(e.sources, e.started), e.calls.durations, e.calls.errors)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func (e testExporter) scrape(t *testing.T) map[string]float64 {
	t.Helper()
	return values(e.ours(t))
}

func freshRegistry(n *node) prometheus.Gatherer {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(n.sources, time.Now()))
	return registry
}

func scrape(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return values(families)
}

// values gives each series by its name and labels. Times differ from one
// fixture to the next and are left out.
func values(families []*dto.MetricFamily) map[string]float64 {
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for i, l := range m.GetLabel() {
				key += fmt.Sprintf("%s%s=%q", map[bool]string{true: "{", false: ","}[i == 0], l.GetName(), l.GetValue())
			}
			if len(m.GetLabel()) > 0 {
				key += "}"
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			if strings.Contains(f.GetName(), "_timestamp_") {
				value = 0
			}
			series[key] = value
		}
	}
	return series
}

// of gives the series of one family.
func (f family) of(families []*dto.MetricFamily) []*dto.Metric {
	for _, candidate := range families {
		if candidate.GetName() == table[f].name {
			return candidate.GetMetric()
		}
	}
	return nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func text(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); go test -update rewrites it:\n%s", path, diff)
	}
}
