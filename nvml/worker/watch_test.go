//go:build cgo

package worker_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

// listening is a conversation that waits for the events of all GPUs.
func listening(t testing.TB, m machine) *conversation {
	t.Helper()
	c := opened(t, m)
	for _, pci := range m.addresses {
		c.ask(wire.AskWatch, pci)
	}
	c.send(wire.AskEvents, "")
	if a := c.answer(); a != (wire.Answer{}) {
		t.Fatalf("first answer %+v, want an empty one at once", a)
	}
	return c
}

// event waits for an event, past heartbeats.
func (c *conversation) event() nvml.Event {
	c.t.Helper()
	for {
		a := c.answer()
		if a.Error != nil {
			c.t.Fatal(a.Error.Err())
		}
		if a.Event != nil {
			return *a.Event
		}
	}
}

func TestEventsAreToldInOrderWithWhatTheyConcern(t *testing.T) {
	m := running(t, node(t, 2))
	c := listening(t, m)
	before := time.Now()
	m.apply(t, 1, fake.Xid{Code: 31, GPUInstance: new(3), ComputeInstance: new(0)})
	m.apply(t, 0, fake.ECC{Uncorrected: 1}, fake.Recovery(nvml.RecoverGPUReset))
	m.apply(t, 0, fake.Xid{Code: 999})
	gpus := m.driver.State().GPUs
	want := []nvml.Event{
		{Type: nvml.EventXid, PCI: gpus[1].PCI, UUID: gpus[1].UUID, Xid: 31, GPUInstance: new(3), ComputeInstance: new(0)},
		{Type: nvml.EventDoubleBitECC, PCI: gpus[0].PCI, UUID: gpus[0].UUID},
		{Type: nvml.EventRecovery, PCI: gpus[0].PCI, UUID: gpus[0].UUID},
		{Type: nvml.EventXid, PCI: gpus[0].PCI, UUID: gpus[0].UUID, Xid: 999},
	}
	var got []nvml.Event
	for range want {
		e := c.event()
		if e.Time.Before(before) || e.Time.After(time.Now()) {
			t.Errorf("%+v was not received during the test", e)
		}
		got = append(got, e)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(nvml.Event{}, "Time")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWatchedBeforeIsNotMissed(t *testing.T) {
	m := running(t, node(t, 1))
	c := opened(t, m)
	c.ask(wire.AskWatch, m.addresses[0])
	m.apply(t, 0, fake.Xid{Code: 79})
	eventually(t, "Xid shows", func() bool {
		return c.ask(wire.AskHealth, m.addresses[0]).Health.Recovery.Value == nvml.RecoverNodeReboot
	})
	c.send(wire.AskEvents, "")
	if e := c.event(); e.Xid != 79 {
		t.Errorf("%+v, want Xid 79", e)
	}
}

func TestQuietWorkerGivesSignsOfLife(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a heartbeat")
	}
	for _, gpus := range []int{1, 0} {
		t.Run(fmt.Sprintf("%d GPUs", gpus), func(t *testing.T) {
			t.Parallel()
			c := listening(t, running(t, node(t, gpus)))
			before := time.Now()
			if a := c.answer(); a != (wire.Answer{}) {
				t.Errorf("%+v, want a heartbeat", a)
			}
			if took := time.Since(before); took > wire.Heartbeat*time.Second {
				t.Errorf("heartbeat after %s", took)
			}
		})
	}
}

func TestWaitThatFailsSaysWhyAndTheWorkerStays(t *testing.T) {
	m := running(t, node(t, 1))
	c := listening(t, m)
	m.apply(t, 0, fake.Reload{})
	a := c.answer()
	for a.Error == nil { // the driver was unbound and bound
		a = c.answer()
	}
	if a.Error.Kind != wire.KindRenewed {
		t.Fatalf("%+v, want renewed", a)
	}
	c.send(wire.AskEvents, "") // read by whoever is still there
	if err := c.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the worker has ended by itself: %v", err)
	}
	_ = c.in.Close()
	if code := c.end(patience); code != 0 {
		t.Errorf("exit code %d: %s", code, c.errs.String())
	}
}

func TestLossOfAWatchedGPUEndsTheWait(t *testing.T) {
	m := running(t, node(t, 2))
	c := listening(t, m)
	m.apply(t, 1, fake.Xid{Code: 79}, fake.Lost(true))
	if e := c.event(); e.Xid != 79 || e.PCI != m.addresses[1] {
		t.Errorf("%+v, want Xid 79: what happened before is told", e)
	}
	for {
		a := c.answer()
		if a.Error == nil {
			continue // the recovery action, a heartbeat
		}
		if a.Error.Kind != wire.KindLost {
			t.Errorf("%+v, want lost", a.Error)
		}
		return
	}
}
