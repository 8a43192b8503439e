package exporter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

func TestLostGPUKeepsWhatIsKnownAndHidesNoOther(t *testing.T) {
	n := healthyNode(3)
	e := newTestExporter(n)
	before := e.scrape(t)
	n.lose(1)
	after := e.scrape(t)

	lost := `{gpu="1",uuid="` + gpuIdentity(1).UUID + `"`
	var names []string
	for key := range after {
		if name, labels, _ := strings.Cut(key, "{"); strings.Contains("{"+labels, `gpu="1"`) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	want := []string{
		"gpuvet_gpu_condition", "gpuvet_gpu_info", "gpuvet_gpu_last_answer_timestamp_seconds", "gpuvet_gpu_status", "gpuvet_gpu_up",
		"gpuvet_gpu_xid_errors_total", "gpuvet_gpu_xid_last_timestamp_seconds",
		"gpuvet_nvml_call_errors_total", "gpuvet_nvml_call_seconds_total", "gpuvet_nvml_calls_total",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("families of the lost GPU (-want +got):\n%s", diff)
	}
	if got := after["gpuvet_gpu_up"+lost+"}"]; got != 0 {
		t.Errorf("up of the lost GPU is %v", got)
	}
	if got := after[`gpuvet_gpu_xid_errors_total`+lost+`,xid="79"}`]; got != 1 {
		t.Errorf("Xid 79 was counted %v times, want 1", got)
	}
	others := func(series map[string]float64) map[string]float64 {
		kept := map[string]float64{}
		for key, value := range series {
			if strings.Contains(key, `gpu="0"`) || strings.Contains(key, `gpu="2"`) {
				kept[key] = value
			}
		}
		return kept
	}
	if diff := cmp.Diff(others(before), others(after)); diff != "" {
		t.Errorf("other GPUs (-before +after):\n%s", diff)
	}
}

// The sampler goes on to look for a GPU that was taken out and forgotten.
func TestForgottenGPUHasNoSeries(t *testing.T) {
	n := healthyNode(2)
	n.sample.GPUs[1].Missing = true
	n.snapshot.GPUs = n.snapshot.GPUs[:1]
	for key := range newTestExporter(n).scrape(t) {
		if strings.Contains(key, `gpu="1"`) || strings.Contains(key, gpuIdentity(1).UUID) {
			t.Errorf("series %s", key)
		}
	}
}

func TestReadingsLastAsLongAsTheyAreTrue(t *testing.T) {
	const temperature, up = "gpuvet_gpu_temperature_celsius", "gpuvet_gpu_up"
	tests := []struct {
		name      string
		change    func(*node)
		shown, up bool
	}{
		{"answered just now", func(*node) {}, true, true},
		{"timed out once", func(n *node) { n.sample.GPUs[0].ReadingsErr = nvml.ErrTimeout }, true, false},
		{"too old", func(n *node) { n.age(0, 30*time.Second) }, false, false},
		{"too old for our own freshness", func(n *node) {
			n.sources.Freshness = 5 * time.Second
			n.age(0, 6*time.Second)
		}, false, false},
		{"sampler stands still", func(n *node) {
			n.age(0, time.Minute)
			n.sample.GPUs[0].ReadingsErr, n.sample.GPUs[0].HealthErr = nil, nil
		}, false, false},
		{"health poll says lost", func(n *node) { n.sample.GPUs[0].HealthErr = nvml.ErrLost }, false, false},
		{"missing", func(n *node) { n.sample.GPUs[0].Missing = true }, false, false},
		{"driver unloaded", func(n *node) { n.sample.GPUs[0].ReadingsErr = nvml.ErrNoDriver }, false, false},
		{"kernel log says lost, and the call hangs", func(n *node) {
			n.snapshot.GPUs[0].Conditions = []detector.Condition{lostCondition(time.Now())}
			n.sample.GPUs[0].ReadingsErr = nvml.ErrTimeout
		}, false, false},
		{"never answered", func(n *node) {
			g := &n.sample.GPUs[0]
			*g = nvml.GPUSample{GPU: g.GPU, Index: g.Index}
		}, false, false},
		{"no sample at all", func(n *node) { n.sample = nil }, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := healthyNode(1)
				tt.change(n)
				series := newTestExporter(n).scrape(t)
				uuid := gpuIdentity(0).UUID
				if _, shown := series[fmt.Sprintf("%s{gpu=%q,sensor=%q,uuid=%q}", temperature, "0", "core", uuid)]; shown != tt.shown {
					t.Errorf("temperature shown: %v, want %v", shown, tt.shown)
				}
				if got := series[fmt.Sprintf("%s{gpu=%q,uuid=%q}", up, "0", uuid)] == 1; got != tt.up {
					t.Errorf("up: %v, want %v", got, tt.up)
				}
			})
		})
	}
}

func TestWhatTheDriverCannotSayIsAbsent(t *testing.T) {
	n := healthyNode(1)
	now := time.Now()
	n.sample.GPUs[0].Readings = nvml.Readings{Time: now, Utilization: nvml.Some(0.0)}
	n.sample.GPUs[0].Health = nvml.Health{Time: now}
	var names []string
	for _, f := range newTestExporter(n).ours(t) {
		names = append(names, f.GetName())
	}
	for _, r := range table[gpuTemperature : gpuRecoveryAction+1] {
		if got, want := slices.Contains(names, r.name), r.name == table[gpuUtilization].name; got != want {
			t.Errorf("%s is shown: %v, want %v", r.name, got, want)
		}
	}
}

func TestEveryAlertableXidBeginsAtZero(t *testing.T) {
	n := healthyNode(2)
	n.snapshot.GPUs = append(n.snapshot.GPUs, detector.GPUView{PCI: "0000:db:00.0", Status: detector.Unknown})
	n.snapshot.GPUs[1].Xids = []detector.XidCount{{Code: 1}, {Code: 79, Count: 2}, {Code: 200, Count: 9}}
	got := map[string][]int{}
	for _, m := range gpuXidErrors.of(newTestExporter(n).ours(t)) {
		code, err := strconv.Atoi(label(m, "xid"))
		if err != nil {
			t.Fatal(err)
		}
		got[label(m, "uuid")] = append(got[label(m, "uuid")], code)
		if v, want := m.GetCounter().GetValue(), map[int]float64{79: 2, 200: 9}[code]; label(m, "gpu") == "1" && v != want {
			t.Errorf("Xid %d: %v, want %v", code, v, want)
		}
	}
	for _, codes := range got {
		slices.Sort(codes)
	}
	alertable := n.sources.Policy().Alertable()
	want := map[string][]int{
		gpuIdentity(0).UUID: alertable,
		gpuIdentity(1).UUID: slices.Concat([]int{1}, alertable, []int{200}),
		"0000:db:00.0":      alertable,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("codes by GPU (-want +got):\n%s", diff)
	}
}

// A policy that fences for another Xid has its counter begin at zero, from the
// next scrape on.
func TestAlertableXidsAreThoseOfThePolicyInForce(t *testing.T) {
	n := healthyNode(1)
	policy := detector.DefaultPolicy()
	n.sources.Policy = func() *detector.Policy { return policy }
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(n.sources, time.Now()))
	has142 := func() bool {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(gpuXidErrors.of(families), func(m *dto.Metric) bool { return label(m, "xid") == "142" })
	}
	if has142() {
		t.Error("Xid 142 has a counter by default")
	}
	var err error
	if policy, err = detector.NewPolicy([]detector.PolicyRow{{Xid: new(142), Reason: detector.ResetRequired}}); err != nil {
		t.Fatal(err)
	}
	if !has142() {
		t.Error("Xid 142 fences and has no counter")
	}
}

func TestTwoUnknownGPUsAreTwo(t *testing.T) {
	n := healthyNode(0)
	same := gpuIdentity(0).UUID
	n.snapshot.GPUs = []detector.GPUView{
		{PCI: "0000:1b:00.0", Status: detector.Unknown},
		{PCI: "0000:2b:00.0", Status: detector.Unhealthy},
		{PCI: "0000:3b:00.0", UUID: same, Status: detector.Unknown},
		{PCI: "0000:4b:00.0", UUID: same, Status: detector.Unknown},
	}
	var got []string
	for _, m := range gpuUp.of(newTestExporter(n).ours(t)) {
		got = append(got, label(m, "uuid"))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"0000:1b:00.0", "0000:2b:00.0", "0000:4b:00.0", same}, got); diff != "" {
		t.Errorf("uuid labels (-want +got):\n%s", diff)
	}
}

func TestGPUThatTheSnapshotDoesNotKnowYetIsShown(t *testing.T) {
	n := healthyNode(2)
	n.snapshot.GPUs = n.snapshot.GPUs[1:]
	series := newTestExporter(n).scrape(t)
	if got := series[`gpuvet_gpu_up{gpu="0",uuid="`+gpuIdentity(0).UUID+`"}`]; got != 1 {
		t.Errorf("up: %v, want 1", got)
	}
}

func TestUnknownRecoveryActionIsShownByItsNumber(t *testing.T) {
	n := healthyNode(1)
	n.sample.GPUs[0].Health.Recovery = nvml.Some(nvml.RecoveryAction(9))
	var on []string
	for _, m := range gpuRecoveryAction.of(newTestExporter(n).ours(t)) {
		if m.GetGauge().GetValue() == 1 {
			on = append(on, label(m, "action"))
		}
	}
	if diff := cmp.Diff([]string{"9"}, on); diff != "" {
		t.Errorf("actions that are on (-want +got):\n%s", diff)
	}
}
