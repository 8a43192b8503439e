package exporter

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"gpuvet.dev/detector"
)

func TestAllocationModeIsOneOfItsValues(t *testing.T) {
	n := healthyNode(1)
	n.sources.Allocation = func() Allocation { return Allocation{Mode: "withheld", Cause: "a device plugin", Waiting: 1} }
	n.snapshot.Claims = []*detector.Claim{{UID: "a", Prepared: true}, {UID: "b"}}
	want := `
# HELP gpuvet_dra_claims Claims that hold devices of this node: prepared, or about to be (intended).
# TYPE gpuvet_dra_claims gauge
gpuvet_dra_claims{state="intended"} 1
gpuvet_dra_claims{state="prepared"} 1
# HELP gpuvet_dra_devices Devices in the ResourceSlices of this node (published), and those that wait until containers can be given them (waiting).
# TYPE gpuvet_dra_devices gauge
gpuvet_dra_devices{state="published"} 0
gpuvet_dra_devices{state="waiting"} 1
# HELP gpuvet_dra_mode How sick devices are kept from new work: 1 for the mode in force. starting: nothing is known of the API server yet; taints: by device taints; attribute: by the attribute healthy alone, for the API server keeps no device taints; withheld: nothing is published, for another driver or a device plugin gives out the GPUs.
# TYPE gpuvet_dra_mode gauge
gpuvet_dra_mode{mode="attribute"} 0
gpuvet_dra_mode{mode="starting"} 0
gpuvet_dra_mode{mode="taints"} 0
gpuvet_dra_mode{mode="withheld"} 1
`
	e := New(n.sources)
	if err := testutil.GatherAndCompare(e.registry, strings.NewReader(want), "gpuvet_dra_mode", "gpuvet_dra_devices", "gpuvet_dra_claims"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotDeliveredIsOnThePageAsInStatus(t *testing.T) {
	for _, tt := range []struct {
		name   string
		told   Allocation
		failed error
		want   []string
	}{
		{"all is well", Allocation{Mode: "taints", Devices: 2, Registered: true}, nil, nil},
		{
			"at the start",
			Allocation{Mode: "starting", Unregistered: "the kubelet has not asked yet"},
			nil,
			[]string{"dra: nothing is known of the API server yet, and no slices are published", "dra: no claim can be prepared: the kubelet has not asked yet"},
		},
		{
			"no taints",
			Allocation{Mode: "attribute", Cause: "v1.34.1 keeps none", Registered: true},
			nil,
			[]string{"dra: sick devices have no taints: v1.34.1 keeps none"},
		},
		{
			"a rival",
			Allocation{Mode: "withheld", Cause: "a device plugin", Registered: true},
			nil,
			[]string{"dra: nothing is published: a device plugin"},
		},
		{
			"no CDI",
			Allocation{Mode: "taints", Devices: 6, Waiting: 2, Missing: "no CDI spec names it", Registered: true},
			nil,
			[]string{"dra: 6 of 8 devices are published; no container could be given the others: no CDI spec names it"},
		},
		{
			"no API server",
			Allocation{Mode: "taints", Registered: true},
			errors.New("connection refused"),
			[]string{"output node: at snapshot 41 of 42: connection refused"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := healthyNode(1)
			n.sources.Allocation = func() Allocation { return tt.told }
			n.sources.Outputs = []Output{{"node", func() Progress { return Progress{Seq: 41, Err: tt.failed} }}}
			e := New(n.sources)
			report := e.report()
			if diff := cmp.Diff(tt.want, report.Undelivered()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			_, body := get(e.Handler(), "/")
			if got := strings.Count(body, `<p class="Degraded">`); got != len(tt.want) {
				t.Errorf("%d notes on the page, want %d:\n%s", got, len(tt.want), body)
			}
			for _, want := range tt.want {
				if !strings.Contains(body, ">"+want+"<") {
					t.Errorf("the page does not tell %q:\n%s", want, body)
				}
			}
		})
	}
}

func TestOperationsOnClaimsAreMeasured(t *testing.T) {
	e := New(healthyNode(1).sources)
	first, second := e.BeginClaim("prepare"), e.BeginClaim("prepare")
	if got := testutil.ToFloat64(e.claims.underWay.WithLabelValues("prepare")); got != 2 {
		t.Errorf("%v are under way, want 2", got)
	}
	first("")
	second("unfit")
	if got := testutil.ToFloat64(e.claims.underWay.WithLabelValues("prepare")); got != 0 {
		t.Errorf("%v are under way, want none", got)
	}
	if got := testutil.ToFloat64(e.claims.errors.WithLabelValues("prepare", "unfit")); got != 1 {
		t.Errorf("%v errors of the kind unfit, want 1", got)
	}
	if got := testutil.CollectAndCount(e.claims.errors); got != 1 {
		t.Errorf("%d kinds of errors, want 1", got)
	}
}
