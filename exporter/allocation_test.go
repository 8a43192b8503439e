package exporter

import (
	"strings"
	"testing"

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
