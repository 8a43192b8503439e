package pool

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

func boolean(b bool) *resourceapi.DeviceAttribute { return &resourceapi.DeviceAttribute{BoolValue: &b} }

func taintOf(key string, reason detector.Reason, effect resourceapi.DeviceTaintEffect, since time.Time) resourceapi.DeviceTaint {
	return resourceapi.DeviceTaint{Key: key, Value: string(reason), Effect: effect, TimeAdded: &metav1.Time{Time: since.Truncate(time.Second)}}
}

func TestTaintsOfAGPU(t *testing.T) {
	const (
		noSchedule = resourceapi.DeviceTaintEffectNoSchedule
		noExecute  = resourceapi.DeviceTaintEffectNoExecute
		none       = resourceapi.DeviceTaintEffectNone
	)
	later := began.Add(time.Hour)
	at := func(c detector.Condition, since time.Time) detector.Condition {
		c.Since = since
		return c
	}
	memory := faultOf(detector.UncorrectableMemory, detector.TaintMemory, detector.NoSchedule)
	failed := faultOf(detector.RowRemapFailed, detector.TaintMemory, detector.NoExecute)
	down := faultOf(detector.LinkDown, detector.TaintLink, detector.NoEffect)
	paused := faultOf(detector.Unmonitored, detector.TaintUnmonitored, detector.None)
	crash := faultOf(detector.ApplicationFault, detector.TaintMemory, detector.NoExecute)
	crash.Class, crash.Scope = detector.Application, detector.ScopeWorkload
	pending := faultOf(detector.RowRemapPending, "", detector.NoEffect)
	refusal := func(reason detector.Reason) detector.Refusal { return detector.Refusal{Reason: reason, Since: later} }

	for _, c := range []struct {
		name     string
		faults   []detector.Condition
		refusals []detector.Refusal
		limits   Limits
		want     []resourceapi.DeviceTaint
		healthy  bool
		status   detector.Status
	}{
		{name: "none", limits: newest, healthy: true, status: detector.Healthy},
		{
			name: "one", faults: []detector.Condition{lost}, limits: newest, status: detector.Unhealthy,
			want: []resourceapi.DeviceTaint{taintOf("gpuvet.dev/lost", detector.GPULost, noSchedule, began)},
		},
		{
			name: "two of one key: the harder speaks", faults: []detector.Condition{memory, at(failed, later)}, limits: newest, status: detector.Unhealthy,
			want: []resourceapi.DeviceTaint{taintOf("gpuvet.dev/memory", detector.RowRemapFailed, noExecute, later)},
		},
		{
			name: "two keys, the worst first", faults: []detector.Condition{lost, at(failed, later)}, limits: newest, status: detector.Unhealthy,
			want: []resourceapi.DeviceTaint{
				taintOf("gpuvet.dev/memory", detector.RowRemapFailed, noExecute, later),
				taintOf("gpuvet.dev/lost", detector.GPULost, noSchedule, began),
			},
		},
		{name: "no effect is no taint", faults: []detector.Condition{down, pending}, limits: newest, healthy: true, status: detector.Degraded},
		{
			name: "None informs", faults: []detector.Condition{paused}, limits: newest, healthy: true, status: detector.Degraded,
			want: []resourceapi.DeviceTaint{taintOf("gpuvet.dev/unmonitored", detector.Unmonitored, none, began)},
		},
		{name: "None where it is not known", faults: []detector.Condition{paused}, limits: LimitsOf(1, 34), healthy: true, status: detector.Degraded},
		{name: "an application's fault never taints", faults: []detector.Condition{crash}, limits: newest, healthy: true, status: detector.Healthy},
		{
			name: "an application's fault, refused", faults: []detector.Condition{crash}, limits: newest, healthy: true, status: detector.Healthy,
			refusals: []detector.Refusal{refusal(detector.ApplicationFault)},
		},
		{
			name: "refused: whoever waits for it is sent away", faults: []detector.Condition{memory}, limits: newest, status: detector.Unhealthy,
			refusals: []detector.Refusal{refusal(detector.UncorrectableMemory)},
			want:     []resourceapi.DeviceTaint{taintOf("gpuvet.dev/memory", detector.UncorrectableMemory, noExecute, later)},
		},
		{
			name: "refused for what has no effect", faults: []detector.Condition{down}, limits: newest, status: detector.Unhealthy,
			refusals: []detector.Refusal{refusal(detector.LinkDown)},
			want:     []resourceapi.DeviceTaint{taintOf("gpuvet.dev/link", detector.LinkDown, noExecute, later)},
		},
		{
			name: "refused while all are being sent away", faults: []detector.Condition{failed}, limits: newest, status: detector.Unhealthy,
			refusals: []detector.Refusal{refusal(detector.RowRemapFailed)},
			want:     []resourceapi.DeviceTaint{taintOf("gpuvet.dev/memory", detector.RowRemapFailed, noExecute, began)},
		},
		{
			name: "refused for what is over", faults: []detector.Condition{lost}, limits: newest, status: detector.Unhealthy,
			refusals: []detector.Refusal{refusal(detector.UncorrectableMemory)},
			want:     []resourceapi.DeviceTaint{taintOf("gpuvet.dev/lost", detector.GPULost, noSchedule, began)},
		},
		{
			name: "of too many the worst stay", limits: Limits{Taints: 2, None: true}, status: detector.Unhealthy,
			faults: []detector.Condition{paused, lost, failed, memory},
			want: []resourceapi.DeviceTaint{
				taintOf("gpuvet.dev/memory", detector.RowRemapFailed, noExecute, began),
				taintOf("gpuvet.dev/lost", detector.GPULost, noSchedule, began),
			},
		},
		{name: "a server without taints hears it by attribute", faults: []detector.Condition{lost}, status: detector.Unhealthy},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := node(t, "h100", 2)
			strike(s, 1, c.faults...)
			s.GPUs[1].Refusals = c.refusals
			devices := Devices(s, c.limits)
			if diff := cmp.Diff(c.want, devices[1].Published.Taints); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
			if devices[1].Healthy != c.healthy || devices[1].Status != c.status {
				t.Errorf("healthy %t, status %s", devices[1].Healthy, devices[1].Status)
			}
			attributes := devices[1].Published.Attributes
			if diff := cmp.Diff(boolean(c.healthy), new(attributes["healthy"])); diff != "" {
				t.Errorf("healthy (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(text(string(c.status)), new(attributes["healthState"])); diff != "" {
				t.Errorf("healthState (-want +got):\n%s", diff)
			}
			if len(devices[0].Published.Taints) > 0 || !devices[0].Healthy {
				t.Errorf("the other GPU: %+v", devices[0].Published.Taints)
			}
		})
	}
}

func TestAFaultOfOneInstanceFencesThatAlone(t *testing.T) {
	s := cut(t, 1, []string{"3g.40gb", "3g.40gb"})
	mine := s.GPUs[0].Instances[1]
	strike(s, 0, inInstance(faultOf(detector.UncorrectableMemory, detector.TaintMemory, detector.NoSchedule), mine.GPUInstance, mine.ComputeInstance))
	devices := Devices(s, newest)
	if !devices[0].Healthy || devices[0].Status != detector.Healthy || len(devices[0].Conditions) > 0 {
		t.Errorf("neighbour: %+v", devices[0])
	}
	if devices[1].Healthy || len(devices[1].Published.Taints) != 1 {
		t.Errorf("the one: %+v", devices[1])
	}

	strike(s, 0, lost)
	for _, d := range Devices(s, newest) {
		if d.Healthy || d.Conditions[len(d.Conditions)-1].Reason == "" {
			t.Errorf("of a lost GPU: %+v", d)
		}
	}
}

func TestARefusedInstanceAloneIsEmptied(t *testing.T) {
	s := cut(t, 1, []string{"3g.40gb", "3g.40gb"})
	mine := s.GPUs[0].Instances[0]
	strike(s, 0, lost)
	s.GPUs[0].Refusals = []detector.Refusal{{
		GPUInstance: &mine.GPUInstance, ComputeInstance: &mine.ComputeInstance, Reason: detector.GPULost, Since: began.Add(time.Minute),
	}}
	devices := Devices(s, newest)
	want := []resourceapi.DeviceTaintEffect{resourceapi.DeviceTaintEffectNoExecute, resourceapi.DeviceTaintEffectNoSchedule}
	for i := range want {
		if got := devices[i].Published.Taints[0].Effect; got != want[i] {
			t.Errorf("%s: %s, want %s", devices[i].Name, got, want[i])
		}
	}
}

// What makes the node unfit makes every device unfit; but who has to leave is told by
// the node's taint.
func TestAFaultOfTheNodeFencesEveryDeviceAndEmptiesNone(t *testing.T) {
	s := node(t, "h100", 2)
	stuck := faultOf(detector.DriverStuck, detector.TaintUnresponsive, detector.NoExecute)
	stuck.Scope = detector.ScopeNode
	warning := faultOf(detector.FabricWarning, detector.TaintLink, detector.NoEffect)
	warning.Scope = detector.ScopeNode
	s.Node = []detector.Condition{stuck, warning}
	for _, d := range Devices(s, newest) {
		want := []resourceapi.DeviceTaint{taintOf("gpuvet.dev/unresponsive", detector.DriverStuck, resourceapi.DeviceTaintEffectNoSchedule, began)}
		if diff := cmp.Diff(want, d.Published.Taints); diff != "" {
			t.Errorf("%s (-want +got):\n%s", d.Name, diff)
		}
		if d.Healthy || d.Status != detector.Unhealthy || len(d.Conditions) != 1 {
			t.Errorf("%s: %+v", d.Name, d)
		}
	}
	s.Node = []detector.Condition{warning}
	for _, d := range Devices(s, newest) {
		if !d.Healthy || d.Status != detector.Healthy {
			t.Errorf("%s after a warning: %+v", d.Name, d)
		}
	}
}

// Old readings are no fault yet; what becomes of it has a taint of its own.
func TestStaleReadingsDoNotFence(t *testing.T) {
	s := node(t, "h100", 1)
	s.GPUs[0].Fresh, s.GPUs[0].Status = false, detector.Unknown
	d := Devices(s, newest)[0]
	if !d.Healthy || d.Status != detector.Unknown || len(d.Published.Taints) > 0 {
		t.Errorf("%+v", d)
	}
}

func TestLimitsFollowTheServer(t *testing.T) {
	for version, want := range map[[2]int]Limits{
		{1, 33}: {4, false}, {1, 34}: {4, false}, {1, 35}: {16, true}, {1, 37}: {16, true}, {2, 0}: {16, true},
	} {
		if got := LimitsOf(version[0], version[1]); got != want {
			t.Errorf("%v: %+v, want %+v", version, got, want)
		}
	}
}
