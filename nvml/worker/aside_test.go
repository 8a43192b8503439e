//go:build cgo

package worker_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

func TestDriverThatIsUnboundAndBoundSaysSo(t *testing.T) {
	m := running(t, node(t, 2))
	c := listening(t, m)
	m.apply(t, 1, fake.Bound(false))
	got := c.event()
	if want := (nvml.Event{Type: nvml.EventUnbind, Time: got.Time, PCI: m.addresses[1]}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	other := opened(t, m)
	if list := other.ask(wire.AskList, "").List; !cmp.Equal(list.GPUs, m.addresses[:1]) {
		t.Errorf("list %v, want the other GPU alone", list.GPUs)
	}
	if e := other.refused(wire.AskHealth, m.addresses[1]); e.Kind != wire.KindNotFound {
		t.Errorf("%+v, want not found", e)
	}
	m.apply(t, 0, fake.Xid{Code: 13})
	if e := c.event(); e.Xid != 13 || e.PCI != m.addresses[0] {
		t.Errorf("%+v, want Xid 13: the wait goes on for the other GPU", e)
	}
	m.apply(t, 1, fake.Bound(true))
	if e := c.event(); e.Type != nvml.EventBind || e.PCI != m.addresses[1] {
		t.Errorf("%+v, want bind", e)
	}
	// The GPU has to be watched anew.
	if a := c.answer(); a.Error == nil || a.Error.Kind != wire.KindOther || !contains(a.Error.Text, m.addresses[1]) {
		t.Errorf("%+v, want the end of the wait", a)
	}
}

// structured is a node whose driver knows operational events.
func structured(t *testing.T) *fake.Scenario {
	t.Helper()
	s := node(t, 2)
	s.Driver.CUDA = "13.4"
	return s
}

// Both faces tell the same events, in the plain and in the structured form. Each
// form has its order.
func TestBothFacesTellTheSameEvents(t *testing.T) {
	m := running(t, structured(t))
	c := listening(t, m)
	inProcess := make(chan nvml.Event, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.driver.Events(ctx, func(e nvml.Event) { inProcess <- e }) }()
	defer func() { cancel(); <-ended }()
	// Until it listens.
	eventually(t, "the driver tells events", func() bool {
		m.apply(t, 1, fake.Event{Type: nvml.EventMIGConfiguration})
		return len(inProcess) > 0
	})
	const mark = 999
	m.apply(t, 0, fake.Xid{Code: 31, GPUInstance: new(1), ComputeInstance: new(0)}, fake.ECC{Uncorrected: 1}, fake.Recovery(nvml.RecoverGPUReset))
	for _, kind := range []nvml.EventType{
		nvml.EventSingleBitECC, nvml.EventSingleBitStorm, nvml.EventRetirement, nvml.EventRetirementFailed,
		nvml.EventContainedPoison, nvml.EventFatalPoison, nvml.EventUnavailable,
	} {
		m.apply(t, 0, fake.Event{Type: kind})
	}
	m.apply(t, 0, fake.Xid{Code: mark})
	isMark := func(e nvml.Event) bool { return e.Type == nvml.EventOperational && e.Xid == mark }
	var want, got []nvml.Event
	for len(want) == 0 || !isMark(want[len(want)-1]) {
		want = append(want, <-inProcess)
	}
	for plain := false; !plain || !slices.ContainsFunc(got, isMark); {
		e := c.event()
		plain = plain || e.Type == nvml.EventXid && e.Xid == mark
		got = append(got, e)
	}
	ofGPU := func(events []nvml.Event) []nvml.Event {
		events = slices.DeleteFunc(events, func(e nvml.Event) bool { return e.PCI != m.addresses[0] })
		slices.SortStableFunc(events, func(a, b nvml.Event) int {
			return strings.Compare(string(form(a)), string(form(b)))
		})
		return events
	}
	if diff := cmp.Diff(ofGPU(want), ofGPU(got), cmpopts.IgnoreFields(nvml.Event{}, "Time")); diff != "" {
		t.Errorf("(-driver +worker):\n%s", diff)
	}
}

func form(e nvml.Event) nvml.EventType {
	if e.Type == nvml.EventOperational {
		return e.Type
	}
	return ""
}

// What an older library lacks is not missed.
func TestOldLibraryTellsEventsOfGPUsAlone(t *testing.T) {
	m := runningOver(t, structured(t), libraries.old(t))
	c := listening(t, m)
	m.apply(t, 1, fake.Bound(false))
	m.apply(t, 0, fake.Xid{Code: 13}, fake.Xid{Code: 31})
	for _, code := range []int{13, 31} {
		if e := c.event(); e.Type != nvml.EventXid || e.Xid != code {
			t.Errorf("%+v, want Xid %d", e, code)
		}
	}
}
