package dra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/gpuconfig"
)

func fact(kind detector.Kind, fields ...string) detector.Event {
	e := detector.Event{Source: detector.SourceState, Kind: kind, GPU: gpu(0)}
	for i := 0; i < len(fields); i += 2 {
		if e.Fields == nil {
			e.Fields = map[string]string{}
		}
		e.Fields[fields[i]] = fields[i+1]
	}
	return e
}

func xid(code int) detector.Event {
	return detector.Event{Source: detector.SourceKernelLog, Kind: detector.KindXid, GPU: gpu(0), Xid: &detector.Report{Code: code}}
}

func TestUnfitDeviceIsNotGivenOut(t *testing.T) {
	t.Parallel()
	tolerates := func(key string) func(*resourceapi.ResourceClaim) {
		return func(c *resourceapi.ResourceClaim) {
			c.Status.Allocation.Devices.Results[0].Tolerations = []resourceapi.DeviceToleration{
				{Key: "gpuvet.dev/" + key, Operator: resourceapi.DeviceTolerationOpExists},
			}
		}
	}
	less := `{"apiVersion":"gpuvet.dev/v1alpha1","kind":"GPUConfig","preflight":"none"}`
	slow := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		events []detector.Event
		look   func(context.Context, string) error
		change func(*resourceapi.ResourceClaim)
		config func(*Config)
		refuse string // what stands in the error; empty: it is given out
		mark   detector.Reason
	}{
		"a healthy GPU":                     {},
		"an application's Xid":              {events: []detector.Event{xid(31)}},
		"a warning":                         {events: []detector.Event{fact(detector.KindPCIeDegraded, "so", "true")}},
		"lost":                              {events: []detector.Event{xid(79)}, refuse: device(0) + " (GPU-0): GPULost: reboot the node", mark: detector.GPULost},
		"missing":                           {events: []detector.Event{fact(detector.KindGPUMissing)}, refuse: "GPULost: reboot the node", mark: detector.GPULost},
		"wants a reset":                     {events: []detector.Event{fact(detector.KindRecoveryAction, "action", "1")}, refuse: "ResetRequired: reset the GPU", mark: detector.ResetRequired},
		"wants a drain and a reset":         {events: []detector.Event{fact(detector.KindRecoveryAction, "action", "4")}, refuse: "ResetRequired: drain the node and reset the GPU", mark: detector.ResetRequired},
		"wants a reboot":                    {events: []detector.Event{fact(detector.KindRecoveryAction, "action", "2")}, refuse: "RebootRequired: reboot the node", mark: detector.RebootRequired},
		"wants its fabric domain recovered": {events: []detector.Event{fact(detector.KindRecoveryAction, "action", "5")}},
		"a row remap waits":                 {events: []detector.Event{fact(detector.KindRemapPending, "pending", "true")}, refuse: "RowRemapPending: drain the node and reset the GPU", mark: detector.RowRemapPending},
		"a fault of the policy":             {events: []detector.Event{fact(detector.KindRemapFailed, "failed", "true")}, refuse: "RowRemapFailed: contact NVIDIA's support", mark: detector.RowRemapFailed},
		"several faults":                    {events: []detector.Event{xid(79), fact(detector.KindRemapFailed, "failed", "true")}, refuse: ": contact NVIDIA's support", mark: detector.GPULost},
		"the driver hangs":                  {events: []detector.Event{{Source: detector.SourceState, Kind: detector.KindDriverStuck}}, refuse: "DriverStuck: reboot the node"},
		"does not answer":                   {look: slow, refuse: device(0) + " (GPU-0): did not answer within 1s"},
		"cannot be asked":                   {look: func(context.Context, string) error { return errors.New("NVML is closed") }, refuse: "NVML is closed"},
		"faulty and does not answer":        {look: slow, events: []detector.Event{xid(79)}, refuse: "GPULost", mark: detector.GPULost},
		"tolerated":                         {events: []detector.Event{xid(79)}, change: tolerates("lost")},
		"another is tolerated":              {events: []detector.Event{xid(79)}, change: tolerates("link"), refuse: "GPULost", mark: detector.GPULost},
		"a person ignores it": {events: []detector.Event{
			fact(detector.KindRecoveryAction, "action", "1"),
			{Source: detector.SourceHand, Kind: detector.KindIgnore, GPU: gpu(0), Fields: map[string]string{"reason": "ResetRequired", "for": "1h", "author": "test"}},
		}},
		"the node does not look":  {events: []detector.Event{xid(79)}, look: slow, config: func(c *Config) { c.Preflight = gpuconfig.None }},
		"its class does not look": {events: []detector.Event{xid(79)}, look: slow, change: configured(resourceapi.AllocationConfigSourceClass, less)},
		"an administrator":        {events: []detector.Event{xid(79)}, look: slow, change: admin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.config != nil {
				c.config(&w.config)
			}
			if c.look != nil {
				w.look = c.look
			}
			w.start()
			for _, e := range c.events {
				w.emit(e)
			}
			began := time.Now()
			_, err := w.plugin.prepare(t.Context(), changed(claim("train", "pod", 0), c.change))
			if c.look != nil && time.Since(began) > 1500*time.Millisecond {
				t.Errorf("it took %v", time.Since(began))
			}
			given, held := w.detector.Snapshot().Claim("uid-train")
			if (err == nil) != (c.refuse == "") || err != nil && !strings.Contains(err.Error(), c.refuse) || held != (err == nil) {
				t.Fatalf("%v, held %+v; want an error with %q", err, given, c.refuse)
			}
			var marks []detector.Reason
			for _, r := range w.detector.Snapshot().GPUs[0].Refusals {
				marks = append(marks, r.Reason)
			}
			if !slices.Equal(marks, slices.DeleteFunc([]detector.Reason{c.mark}, func(r detector.Reason) bool { return r == "" })) {
				t.Errorf("marked %v, want %q", marks, c.mark)
			}
		})
	}
}

func changed(c *resourceapi.ResourceClaim, change func(*resourceapi.ResourceClaim)) *resourceapi.ResourceClaim {
	if change != nil {
		change(c)
	}
	return c
}

func TestGPUsAreAskedSideBySideAndJudgedByTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.gpus = 4
	var asked sync.WaitGroup
	asked.Add(w.gpus)
	w.look = func(_ context.Context, pci string) error {
		asked.Done()
		asked.Wait()           // none is answered before all were asked
		if pci == gpu(2).PCI { // and what it says is new
			w.xid(2, 79)
		}
		return nil
	}
	w.start()
	_, err := w.plugin.prepare(t.Context(), claim("train", "pod", 0, 1, 2, 3))
	if want := fmt.Sprintf("%s (GPU-2): GPULost: reboot the node", device(2)); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if KindOf(err) != KindUnfit {
		t.Errorf("kind %q", KindOf(err))
	}
}

func TestRefusalIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	w.xid(0, 79)
	for range 3 {
		if _, err := w.plugin.prepare(t.Context(), claim("train", "pod", 0)); err == nil {
			t.Fatal("a lost GPU was given out")
		}
	}
	if _, err := w.plugin.prepare(t.Context(), claim("next", "other", 0)); err == nil {
		t.Fatal("a lost GPU was given out")
	}
	var pods []string
	for _, told := range w.detector.Snapshot().Transitions {
		if told.Condition == detector.NotedRefused {
			pods = append(pods, told.Holders[0].Pod)
		}
	}
	if diff := cmp.Diff([]string{"team-a/pod", "team-a/other"}, pods); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// A device that is refused is emptied by its taint, which takes a key.
func TestEveryFaultThatKeepsAwayHasATaint(t *testing.T) {
	for reason, row := range detector.DefaultPolicy().Reasons {
		c := detector.Condition{Reason: reason, Class: row.Class, Scope: row.Scope, Effect: row.Effect}
		if keepsAway(c) && row.Taint == "" {
			t.Errorf("%s keeps new work away and has no key of a taint", reason)
		}
	}
}
