package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func (s *script) ignore(seconds float64, pci string, fields map[string]string) {
	s.t.Helper()
	s.fold(Event{Source: SourceHand, Kind: KindIgnore, Time: at(seconds), GPU: Device{PCI: pci}, Fields: fields})
}

var forADay = map[string]string{"reason": "ResetRequired", "for": "24h", "by": ByHand, "author": "ada"}

func TestIgnoredFaultIsRecordedAndHasNoEffectUntilItsTimeIsOver(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 119, "x")
	s.xid(2, gpuB, 119, "x")
	s.told, s.noted = nil, nil
	s.ignore(10, gpuA, forADay)
	words := "ResetRequired ignored by hand (ada) until 2026-11-22T12:00:10Z"
	s.says(gpuA + " ResetRequired cleared: " + words)
	s.status(gpuA, Healthy)
	s.status(gpuB, Unhealthy)
	s.xid(100, gpuA, 119, "x")
	s.xid(100, gpuA, 95, "x")
	s.says(gpuA + " UncorrectableMemory raised: Xid 95")

	g, _ := view(s.state).GPU(gpuA)
	want := []Ignored{{Reason: ResetRequired, Until: at(10).Add(24 * time.Hour), By: ByHand, Author: "ada"}}
	if diff := cmp.Diff(want, g.Ignored); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	if len(g.Conditions) != 1 || len(g.Unheeded) != 1 || g.Unheeded[0].Count != 2 {
		t.Errorf("conditions %+v, unheeded %+v", g.Conditions, g.Unheeded)
	}
	if got := s.count(gpuA, 119); got != 2 {
		t.Errorf("counted %d, want 2", got)
	}

	s.start(1000, "boot-1")
	s.well(1001, gpuA)
	s.rest(86400 + 9)
	s.says()
	s.rest(86400 + 11)
	s.says(gpuA + " ResetRequired raised: Xid 119: its time is over")
	if diff := cmp.Diff([]string{"Ignored: " + words, "Heeded: ResetRequired: its time is over"}, s.noted); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestIgnoredFaultThatComesAndGoesIsToldToBeIgnored(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.ignore(2, gpuA, forADay)
	s.xid(3, gpuA, 119, "x")
	s.driver(10, "b")
	s.rest(40)
	s.says(gpuA+" ResetRequired ignored: raised: Xid 119", gpuA+" ResetRequired ignored: cleared: driver was loaded again")
}

func TestWhatIsIgnoredCountsAgainWhenSomebodySaysSo(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.ignore(2, gpuA, forADay)
	s.xid(3, gpuA, 119, "x")
	s.told = nil
	unignore := func(reason string) {
		s.fold(Event{Source: SourceHand, Kind: KindUnignore, Time: at(5), GPU: Device{PCI: gpuA}, Fields: map[string]string{"reason": reason, "author": "bob"}})
	}
	unignore("LinkFault")
	s.says()
	unignore("ResetRequired")
	s.says(gpuA + " ResetRequired raised: Xid 119: not ignored any more, by hand (bob)")
	s.status(gpuA, Unhealthy)
}

func TestWhatIsIgnoredGoesWithTheGPUAndNotWithTheSlot(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.ignore(2, gpuA, forADay)
	s.ignore(2, gpuB, forADay)
	s.fold(Event{Source: SourceState, Kind: KindGPUFound, Time: at(9), GPU: Device{PCI: gpuA, UUID: "GPU-new"}})
	s.xid(10, gpuA, 119, "x")
	s.status(gpuA, Unhealthy)
	s.start(100, "boot-2")
	s.driver(101, "c") // with the GPU that was there before
	s.xid(102, gpuA, 119, "x")
	s.xid(102, gpuB, 119, "x")
	s.status(gpuA, Healthy)
	s.status(gpuB, Healthy)
}

func TestBadRequestToIgnoreChangesNothing(t *testing.T) {
	for name, fields := range map[string]map[string]string{
		"too long":      {"reason": "ResetRequired", "for": "721h"},
		"no time":       {"reason": "ResetRequired"},
		"no reason":     {"for": "1h"},
		"a made-up one": {"reason": "Boredom", "for": "1h"},
		"of the node":   {"reason": "DriverStuck", "for": "1h"},
	} {
		s := newScript(t)
		s.driver(1, "a")
		s.ignore(2, gpuA, fields)
		if g := s.state.GPUs[0]; len(g.Ignored) > 0 {
			t.Errorf("%s: %+v", name, g.Ignored)
		}
	}
}
