package node

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
)

var policy = detector.DefaultPolicy()

// bad is a condition as the policy makes it.
func bad(reason detector.Reason, effect detector.Effect, action detector.Action) detector.Condition {
	row := policy.Reasons[reason]
	return detector.Condition{Reason: reason, Class: detector.Hardware, Scope: row.Scope, Taint: row.Taint, Effect: effect, Action: action}
}

func gpu(i int, status detector.Status, conditions ...detector.Condition) detector.GPUView {
	return detector.GPUView{
		PCI: pci(i), UUID: fmt.Sprintf("GPU-%d", i), Index: &i, Status: status,
		Fresh: status != detector.Unknown, Conditions: conditions,
	}
}

func snapshot(gpus ...detector.GPUView) *detector.Snapshot {
	return &detector.Snapshot{GPUs: gpus, Driver: detector.DriverState{Asked: true}}
}

func TestNodeSaysTheWorstOfItsGPUs(t *testing.T) {
	lostGPU := bad(detector.GPULost, detector.NoSchedule, detector.ActRebootNode)
	memory := bad(detector.UncorrectableMemory, detector.NoSchedule, detector.ActResetGPU)
	thermal := bad(detector.ThermalFault, detector.NoExecute, detector.ActCheckHardware)
	fabric := bad(detector.FabricFault, detector.NoSchedule, detector.ActRebootNode)
	pending := bad(detector.RowRemapPending, detector.NoEffect, detector.ActDrainAndReset)
	application := bad(detector.ApplicationFault, detector.NoSchedule, detector.ActRestartApp)
	application.Class = detector.Application
	missing := snapshot(gpu(0, detector.Unknown))
	missing.Driver.Missing = "libnvidia-ml.so.1 is not there"
	fabricOnly := snapshot(gpu(0, detector.Healthy))
	fabricOnly.Node = []detector.Condition{fabric}
	both := snapshot(gpu(0, detector.Unhealthy, lostGPU))
	both.Node = []detector.Condition{fabric}
	nameless := snapshot(detector.GPUView{PCI: pci(4), Status: detector.Unhealthy, Conditions: []detector.Condition{lostGPU}})
	starting := snapshot(gpu(0, detector.Healthy))
	starting.Driver.Asked = false
	taint := func(value string, effect detector.Effect) *Taint { return &Taint{value, effect} }
	for _, c := range []struct {
		name string
		s    *detector.Snapshot
		want Desired
	}{
		{"all well", snapshot(gpu(0, detector.Healthy), gpu(1, detector.Healthy)), Desired{Status: "True", Reason: "GPUsHealthy", Message: "2 GPUs healthy"}},
		{"one well", snapshot(gpu(0, detector.Healthy)), Desired{Status: "True", Reason: "GPUsHealthy", Message: "1 GPU healthy"}},
		{"no GPU", snapshot(), Desired{Status: "True", Reason: "NoGPUs", Message: "no GPUs on this node"}},
		{"not looked yet", starting, Desired{Status: "Unknown", Reason: "Starting", Message: "the GPUs have not been looked at yet"}},
		{"no driver", missing, Desired{Status: "Unknown", Reason: "DriverMissing", Message: "no driver: libnvidia-ml.so.1 is not there"}},
		{
			"stale", snapshot(gpu(0, detector.Healthy), gpu(1, detector.Unknown)),
			Desired{Status: "Unknown", Reason: "ReadingsStale", Message: "no fresh reading of GPU 1 (0000:11:00.0, GPU-1)"},
		},
		{
			"degraded", snapshot(gpu(0, detector.Healthy), gpu(1, detector.Degraded, pending)),
			Desired{
				Status: "True", Reason: "GPUsHealthy",
				Message: "2 GPUs fit for work, 1 of them degraded: GPU 1 (0000:11:00.0, GPU-1): RowRemapPending, drain-and-reset",
			},
		},
		{
			"application fault", snapshot(gpu(0, detector.Healthy, application)),
			Desired{Status: "True", Reason: "GPUsHealthy", Message: "1 GPU healthy"},
		},
		{
			"bad before stale", snapshot(gpu(0, detector.Unknown), gpu(1, detector.Unhealthy, lostGPU)),
			Desired{
				Status: "False", Reason: "GPULost", Message: "GPU 1 (0000:11:00.0, GPU-1): GPULost, reboot-node",
				Taint: taint("GPULost", detector.NoSchedule),
			},
		},
		{
			"worst first", snapshot(gpu(0, detector.Unhealthy, memory), gpu(1, detector.Unhealthy, lostGPU, pending), gpu(2, detector.Unhealthy, thermal)),
			Desired{
				Status: "False", Reason: "ThermalFault",
				Message: "GPU 2 (0000:12:00.0, GPU-2): ThermalFault, check-hardware; GPU 1 (0000:11:00.0, GPU-1): GPULost, reboot-node; " +
					"GPU 0 (0000:10:00.0, GPU-0): UncorrectableMemory, reset-gpu",
				Taint: taint("ThermalFault", detector.NoExecute),
			},
		},
		{
			"fabric", fabricOnly,
			Desired{Status: "False", Reason: "FabricFault", Message: "node: FabricFault, reboot-node", Taint: taint("FabricFault", detector.NoSchedule)},
		},
		{
			"fabric and a lost GPU", both,
			Desired{
				Status: "False", Reason: "GPULost", Message: "GPU 0 (0000:10:00.0, GPU-0): GPULost, reboot-node; node: FabricFault, reboot-node",
				Taint: taint("GPULost", detector.NoSchedule),
			},
		},
		{
			"never inventoried", nameless,
			Desired{Status: "False", Reason: "GPULost", Message: "GPU (0000:14:00.0): GPULost, reboot-node", Taint: taint("GPULost", detector.NoSchedule)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := desired(c.s, DefaultConfig(), false)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(Desired{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestMessageNamesEightGPUsAndCountsTheOthers(t *testing.T) {
	worst := bad(detector.UncorrectableMemory, detector.NoSchedule, detector.ActDrainAndReset)
	s := snapshot()
	for i := range 64 {
		g := gpu(i, detector.Unhealthy, worst)
		g.UUID = "GPU-12345678-1234-1234-1234-123456789abc"
		s.GPUs = append(s.GPUs, g)
	}
	for _, n := range []int{8, 9, 64} {
		s := *s
		s.GPUs = s.GPUs[:n]
		m := desired(&s, DefaultConfig(), false).Message
		if len(m) > 1024 || strings.Count(m, "UncorrectableMemory") != 8 || strings.HasSuffix(m, " more") != (n > 8) ||
			n > 8 && !strings.HasSuffix(m, fmt.Sprintf(" and %d more", n-8)) {
			t.Errorf("%d bad GPUs: %d bytes: %s", n, len(m), m)
		}
	}
	for i := range s.GPUs {
		s.GPUs[i].UUID = strings.Repeat("u", 400)
	}
	if m := desired(s, DefaultConfig(), false).Message; len(m) > 1024 || !strings.HasSuffix(m, " and 62 more") {
		t.Errorf("%d bytes: %s", len(m), m)
	}
	s.Driver.Missing = strings.Repeat("€", 1000)
	s.GPUs = nil
	if m := desired(s, DefaultConfig(), false).Message; len(m) > 1024 || !strings.HasSuffix(m, "€...") {
		t.Errorf("%d bytes, ends %q", len(m), m[len(m)-8:])
	}
}

func TestWhenANodeIsTainted(t *testing.T) {
	lostGPU := bad(detector.GPULost, detector.NoSchedule, detector.ActRebootNode)
	fabric := bad(detector.FabricFault, detector.NoSchedule, detector.ActRebootNode)
	one := snapshot(gpu(0, detector.Unhealthy, lostGPU), gpu(1, detector.Healthy), gpu(2, detector.Healthy))
	two := snapshot(gpu(0, detector.Unhealthy, lostGPU), gpu(1, detector.Unhealthy, lostGPU), gpu(2, detector.Healthy))
	all := snapshot(gpu(0, detector.Unhealthy, lostGPU), gpu(1, detector.Unhealthy, lostGPU))
	wide := snapshot(gpu(0, detector.Healthy), gpu(1, detector.Healthy))
	wide.Node = []detector.Condition{fabric}
	for _, c := range []struct {
		name      string
		s         *detector.Snapshot
		mode      TaintMode
		threshold Threshold
		devices   bool
		want      bool
	}{
		{"auto, no device fencing", one, TaintAuto, AllGPUs, false, true},
		{"auto, one of three", one, TaintAuto, AllGPUs, true, false},
		{"auto, two of three, limit two", two, TaintAuto, 2, true, true},
		{"auto, one of three, limit two", one, TaintAuto, 2, true, false},
		{"auto, all", all, TaintAuto, AllGPUs, true, true},
		{"auto, all of two, limit three", all, TaintAuto, 3, true, false},
		{"auto, fabric", wide, TaintAuto, AllGPUs, true, true},
		{"always", one, TaintAlways, AllGPUs, true, true},
		{"never", all, TaintNever, 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := desired(c.s, Config{Taint: c.mode, TaintWhenUnhealthy: c.threshold}, c.devices)
			if got := d.Taint != nil; got != c.want || d.Status != corev1.ConditionFalse {
				t.Errorf("taint %v, status %s; want tainted=%v and False", d.Taint, d.Status, c.want)
			}
		})
	}
}

// One GPU that has to be left does not end the work on the others, although none of
// them gets new work.
func TestOnlyAFaultOfTheNodeDrivesWorkOffAllDevices(t *testing.T) {
	memory := bad(detector.UncorrectableMemory, detector.NoExecute, detector.ActResetGPU)
	s := snapshot(gpu(0, detector.Unhealthy, memory), gpu(1, detector.Unhealthy, bad(detector.GPULost, detector.NoSchedule, detector.ActRebootNode)))
	for _, c := range []struct {
		name    string
		node    []detector.Condition
		devices bool
		want    detector.Effect
	}{
		{name: "no device fencing", want: detector.NoExecute},
		{name: "devices are fenced", devices: true, want: detector.NoSchedule},
		{
			name: "and the node has a fault", devices: true, want: detector.NoExecute,
			node: []detector.Condition{bad(detector.DriverStuck, detector.NoExecute, detector.ActRebootNode)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.Node = c.node
			for i := range s.Node {
				s.Node[i].Scope = detector.ScopeNode
			}
			if d := desired(s, DefaultConfig(), c.devices); d.Taint == nil || d.Taint.Effect != c.want {
				t.Errorf("taint %v, want %s", d.Taint, c.want)
			}
		})
	}
}

func TestConfigFromJSON(t *testing.T) {
	c := DefaultConfig()
	if err := json.Unmarshal([]byte(`{"taint":"never","taintWhenUnhealthy":3,"heartbeat":"1m"}`), &c); err != nil {
		t.Fatal(err)
	}
	if c.Taint != TaintNever || c.TaintWhenUnhealthy != 3 || c.Heartbeat.Minutes() != 1 || c.Validate() != nil {
		t.Errorf("got %+v, %v", c, c.Validate())
	}
	if err := json.Unmarshal([]byte(`{"taintWhenUnhealthy":"all"}`), &c); err != nil || c.TaintWhenUnhealthy != AllGPUs {
		t.Errorf("all gives %d, %v", c.TaintWhenUnhealthy, err)
	}
	if data, err := json.Marshal(DefaultConfig()); err != nil || string(data) != `{"taint":"auto","taintWhenUnhealthy":"all","heartbeat":"5m0s"}` {
		t.Errorf("written as %s, %v", data, err)
	}
	for _, wrong := range []string{`"some"`, `0`, `-1`, `1.5`} {
		if err := json.Unmarshal([]byte(`{"taintWhenUnhealthy":`+wrong+`}`), &c); err == nil || !strings.Contains(err.Error(), "expected all or a number from 1") {
			t.Errorf("%s gives %v", wrong, err)
		}
	}
	err := Config{Taint: "maybe", TaintWhenUnhealthy: -2}.Validate()
	for _, want := range []string{`node.taint: "maybe": expected auto, always or never`, "node.taintWhenUnhealthy: -2", "node.heartbeat: 0s: expected 10s to 1h"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want %q", err, want)
		}
	}
}
