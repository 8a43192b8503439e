package fake_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// eventsOf are the events of a driver while something is done.
func eventsOf(t *testing.T, s *fake.Scenario, do func(*fake.Driver)) (events []nvml.Event) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(s)
		go func() { _ = d.Events(t.Context(), func(e nvml.Event) { events = append(events, e) }) }()
		synctest.Wait()
		do(d)
		synctest.Wait()
	})
	return events
}

func TestEventHasAStructuredFormSinceCUDA134(t *testing.T) {
	for version, want := range map[string][]nvml.Event{
		"13.3": {{Type: nvml.EventXid, Xid: 13}},
		"13.4": {
			{Type: nvml.EventXid, Xid: 13},
			{Type: nvml.EventOperational, Xid: 13, Operational: &nvml.Operational{
				Severity: "recoverable", Level: "error", Module: "RM", Code: 13, Attributes: []string{"primary"},
			}},
		},
	} {
		s := node(t, "h100", 1)
		s.Driver.CUDA = version
		got := eventsOf(t, s, func(d *fake.Driver) { apply(t, d, 0, fake.Xid{Code: 13}) })
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(nvml.Event{}, "Time", "PCI", "UUID")); diff != "" {
			t.Errorf("CUDA %s (-want +got):\n%s", version, diff)
		}
	}
}

func TestGPUThatIsUnboundIsNotFoundUntilItIsBound(t *testing.T) {
	s := node(t, "h100", 2)
	pci := s.GPUs[1].PCI
	got := eventsOf(t, s, func(d *fake.Driver) {
		has := func(want int) {
			_, err := d.Health(t.Context(), pci)
			inventory, inventoryErr := d.Inventory(t.Context())
			if inventoryErr != nil || len(inventory.GPUs) != want || errors.Is(err, nvml.ErrNotFound) != (want == 1) {
				t.Errorf("%d GPUs and %v, want %d GPUs", len(inventory.GPUs), errors.Join(err, inventoryErr), want)
			}
		}
		apply(t, d, 1, fake.Bound(false), fake.Bound(false))
		has(1)
		apply(t, d, 1, fake.Bound(true), fake.Bound(true))
		has(2)
		apply(t, d, 1, fake.Bound(false), fake.Reload{})
		has(2)
	})
	want := []nvml.Event{{Type: nvml.EventUnbind, PCI: pci}, {Type: nvml.EventBind, PCI: pci}, {Type: nvml.EventUnbind, PCI: pci}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(nvml.Event{}, "Time")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
