package exporter

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// divide puts a GPU of the node into MIG mode, with three MIG devices. A fault stays
// with each of the first two, and their GPU has one more.
func (n *node) divide(i int) {
	fault := func(reason detector.Reason, effect detector.Effect, gi, ci *int) detector.Condition {
		return detector.Condition{
			Reason: reason, Class: detector.Hardware, Effect: effect, Action: detector.ActResetGPU, Cause: "Xid 95", Since: time.Now(),
			GPUInstance: gi, ComputeInstance: ci,
		}
	}
	v := &n.snapshot.GPUs[i]
	v.MIG = true
	v.Instances = []nvml.Instance{
		{UUID: "MIG-a", GPUInstance: 1, Profile: "2g.20gb"},
		{UUID: "MIG-b", GPUInstance: 2, Profile: "1c.2g.20gb"},
		{UUID: "MIG-c", GPUInstance: 2, ComputeInstance: 1, Profile: "1c.2g.20gb"},
	}
	v.Status = detector.Unhealthy
	v.Conditions = []detector.Condition{
		fault(detector.UncorrectableMemory, detector.NoSchedule, new(1), nil),
		fault(detector.UncorrectableMemory, detector.NoSchedule, new(2), new(0)),
		fault(detector.HardwareWarning, detector.NoEffect, nil, nil),
	}
	v.Conditions[2].Why = "the fault is at the other end of the link"
}

func TestMIGDevicesHaveAStatusOfTheirOwn(t *testing.T) {
	n := healthyNode(2)
	n.divide(1)
	got := map[string]float64{}
	for key, value := range newTestExporter(n).scrape(t) {
		name, labels, _ := strings.Cut(key, "{")
		if value == 1 && (strings.Contains(name, "_instance_") || name == "gpuvet_gpu_condition") {
			got[name+"{"+strings.ReplaceAll(labels, `,uuid="`+gpuIdentity(1).UUID+`"`, "")] = value
		}
	}
	want := map[string]float64{}
	for _, series := range []string{
		`info{compute_instance="0",gpu="1",gpu_instance="1",mig_uuid="MIG-a",profile="2g.20gb"}`,
		`info{compute_instance="0",gpu="1",gpu_instance="2",mig_uuid="MIG-b",profile="1c.2g.20gb"}`,
		`info{compute_instance="1",gpu="1",gpu_instance="2",mig_uuid="MIG-c",profile="1c.2g.20gb"}`,
		`status{compute_instance="0",gpu="1",gpu_instance="1",status="Unhealthy"}`,
		`status{compute_instance="0",gpu="1",gpu_instance="2",status="Unhealthy"}`,
		`status{compute_instance="1",gpu="1",gpu_instance="2",status="Degraded"}`,
	} {
		want["gpuvet_gpu_instance_"+series] = 1
	}
	for _, series := range []string{
		`compute_instance="",effect="",gpu="1",gpu_instance="",reason="HardwareWarning"`,
		`compute_instance="",effect="NoSchedule",gpu="1",gpu_instance="1",reason="UncorrectableMemory"`,
		`compute_instance="0",effect="NoSchedule",gpu="1",gpu_instance="2",reason="UncorrectableMemory"`,
	} {
		want[`gpuvet_gpu_condition{class="hardware",`+series+"}"] = 1
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatusPageShowsMIGDevicesAndWhatHasDecided(t *testing.T) {
	n := healthyNode(2)
	n.divide(1)
	n.lose(0)
	lost := &n.snapshot.GPUs[0]
	lost.Conditions[0].Sticky, lost.Conditions[0].Why = true, "incident 3 within 30 days"
	_, page := get(New(n.sources).Handler(), "/")
	for _, want := range []string{
		"GPULost (Xid 79): reboot-node<br>incident 3 within 30 days: <code>gpuvet clear " + lost.PCI + " GPULost</code><br></td>",
		"UncorrectableMemory (Xid 95, instance 1): reset-gpu<br>UncorrectableMemory (Xid 95, instance 2/0): reset-gpu<br>" +
			"HardwareWarning (Xid 95: the fault is at the other end of the link): reset-gpu<br></td>",
		`<td>instance 2/1</td>
<td title="MIG-c">MIG 1c.2g.20gb</td>
<td class="Degraded">Degraded</td>
<td></td><td></td><td></td>
<td>HardwareWarning (Xid 95: the fault is`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("not on the page: %s\n%s", want, page)
		}
	}
}
