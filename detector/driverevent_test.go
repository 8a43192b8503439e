package detector

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// event has NVML tell an event that is no Xid.
func (s *script) event(seconds float64, pci string, e nvml.Event) {
	s.t.Helper()
	e.Time, e.PCI = at(seconds), pci
	s.fold(FromDriver(e))
}

// xids are how often each Xid of a GPU was counted, and members the signs of its
// faults.
func (s *script) xids(pci string) (counted, members []string) {
	g, _ := view(s.state).GPU(pci)
	for _, x := range g.Xids {
		counted = append(counted, fmt.Sprintf("%d: %d", x.Code, x.Count))
	}
	for _, c := range g.Conditions {
		for _, m := range c.Members {
			members = append(members, fmt.Sprintf("%s %s %d: %d", c.Reason, m.Kind, m.Code, m.Count))
		}
	}
	return counted, members
}

func TestEventIsTheFaultThatItsXidTells(t *testing.T) {
	for _, tt := range []struct {
		event  nvml.EventType
		xid    int
		reason Reason
		status Status
	}{
		{nvml.EventDoubleBitECC, 48, UncorrectableMemory, Unhealthy},
		{nvml.EventContainedPoison, 94, ContainedMemoryError, Degraded},
		{nvml.EventFatalPoison, 95, UncorrectableMemory, Unhealthy},
		{nvml.EventRetirementFailed, 64, UncorrectableMemory, Unhealthy},
	} {
		t.Run(string(tt.event), func(t *testing.T) {
			begin := func() *script {
				s := newScript(t)
				s.driver(1, "a")
				return s
			}
			s := begin()
			s.event(10, gpuA, nvml.Event{Type: tt.event})
			s.says(gpuA + " " + string(tt.reason) + " raised: NVML event " + string(tt.event))
			s.status(gpuA, tt.status)
			if counted, _ := s.xids(gpuA); counted != nil {
				t.Errorf("an event is counted as an Xid: %q", counted)
			}

			// In either order, by whoever tells the Xid, it is one fault.
			event := func(s *script, at float64) { s.event(at, gpuA, nvml.Event{Type: tt.event}) }
			line := func(s *script, at float64) { s.xid(at, gpuA, tt.xid, "as the kernel prints it") }
			number := func(s *script, at float64) { s.event(at, gpuA, nvml.Event{Type: nvml.EventXid, Xid: tt.xid}) }
			for name, order := range map[string][]func(*script, float64){
				"event first": {event, line, number}, "event last": {line, number, event}, "event between": {number, event, line},
			} {
				s := begin()
				for i, tell := range order {
					tell(s, 10+0.5*float64(i))
				}
				if len(s.told) != 1 {
					t.Errorf("%s: told %q, want one fault", name, s.told)
				}
				s.status(gpuA, tt.status)
				counted, members := s.xids(gpuA)
				slices.Sort(members)
				want := []string{
					fmt.Sprintf("%s DriverEvent %d: 1", tt.reason, tt.xid),
					fmt.Sprintf("%s Xid %d: 1", tt.reason, tt.xid),
				}
				if diff := cmp.Diff([]string{fmt.Sprintf("%d: 1", tt.xid)}, counted); diff != "" {
					t.Errorf("%s: Xids (-want +got):\n%s", name, diff)
				}
				if diff := cmp.Diff(want, members); diff != "" {
					t.Errorf("%s: members (-want +got):\n%s", name, diff)
				}
				g, _ := view(s.state).GPU(gpuA)
				if c := g.Conditions[0]; c.Count != 1 || c.Message != "as the kernel prints it" || !slices.Contains(c.Xids, tt.xid) {
					t.Errorf("%s: count %d, message %q, Xids %v", name, c.Count, c.Message, c.Xids)
				}
			}

			s = begin()
			event(s, 10)
			event(s, 20)
			if g, _ := view(s.state).GPU(gpuA); g.Conditions[0].Count != 2 {
				t.Errorf("two events, count %d", g.Conditions[0].Count)
			}
		})
	}
}

func TestUnavailableGPUIsLostUntilItAnswers(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, nvml.Event{Type: nvml.EventUnavailable})
	s.xid(10.5, gpuA, 79, "GPU has fallen off the bus.")
	s.says(gpuA + " GPULost raised: NVML event unavailable")
	s.gpu(11, gpuA, KindStale, nil)
	s.rest(1000)
	s.status(gpuA, Unhealthy)
	s.gpu(1001, gpuA, KindFresh, nil)
	s.rest(1100)
	s.status(gpuA, Healthy)
}

func TestContainedPoisonStaysWithItsInstance(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, nvml.Event{Type: nvml.EventContainedPoison, GPUInstance: new(2)})
	g, _ := view(s.state).GPU(gpuA)
	if len(g.Conditions) != 1 || g.Conditions[0].Scope != ScopeInstance || *g.Conditions[0].GPUInstance != 2 {
		t.Errorf("conditions: %+v", g.Conditions)
	}
}

func TestRowRemapBesideAnEventDrainsFirst(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, nvml.Event{Type: nvml.EventDoubleBitECC})
	s.xid(10.1, gpuA, 63, "Row Remapper: New row")
	g, _ := view(s.state).GPU(gpuA)
	if len(g.Conditions) != 1 || g.Conditions[0].Action != ActDrainAndReset {
		t.Errorf("conditions: %+v", g.Conditions)
	}
}

func TestEventsThatDecideNothingAreCountedAlone(t *testing.T) {
	for _, e := range []nvml.Event{
		{Type: nvml.EventSingleBitECC},
		{Type: nvml.EventRetirement},
		{Type: nvml.EventRecovery},
		{Type: nvml.EventMIGConfiguration},
		{Type: nvml.EventBind},
		{Type: nvml.EventUnbind},
		{Type: "of a newer driver"},
		operational("informational"),
		operational("recoverable"),
		operational("corrected", "primary"),
		operational("50"),
		operational("fatal", "propagated"),
		{Type: nvml.EventOperational, Xid: 31, Operational: &nvml.Operational{Severity: "fatal"}},
		{Type: nvml.EventOperational, Xid: 63, Operational: &nvml.Operational{Severity: "fatal"}},
	} {
		s := newScript(t)
		s.driver(1, "a")
		for i := range 10 {
			s.event(float64(10+10*i), gpuA, e)
		}
		s.says()
		s.status(gpuA, Healthy)
		if n := s.state.Counters.Events["nvml-events/DriverEvent"]; n != 10 {
			t.Errorf("%s: counted %d", e.Type, n)
		}
	}
}

func operational(severity string, attributes ...string) nvml.Event {
	return nvml.Event{Type: nvml.EventOperational, Operational: &nvml.Operational{Severity: severity, Module: "RM", Attributes: attributes}}
}

func TestStormsOfCorrectedErrorsShowWhenTheyCome(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	for i := range 3 {
		s.says()
		s.event(float64(10+600*i), gpuA, nvml.Event{Type: nvml.EventSingleBitStorm})
		s.event(float64(11+600*i), gpuA, operational("corrected", "threshold-exceeded")) // the same once more
	}
	s.says(gpuA + " CorrectedErrors raised: NVML event single-bit-ecc-storm")
	s.status(gpuA, Degraded)
	s.rest(1212 + 3600)
	s.status(gpuA, Healthy)
}

func TestOperationalEventIsJudgedByItsWords(t *testing.T) {
	for _, tt := range []struct {
		event  nvml.Event
		want   string
		status Status
	}{
		{operational("fatal", "primary"), "ResetRequired raised: NVML event operational, fatal", Unhealthy},
		{operational("recoverable", "uncontained"), "ResetRequired raised: NVML event operational, recoverable, uncontained", Unhealthy},
		{operational("recoverable", "component-reset"), "HardwareWarning raised: NVML event operational, recoverable, component-reset", Degraded},
		{operational("recoverable", "latent", "threshold-exceeded"), "HardwareWarning raised: NVML event operational, recoverable, latent, threshold-exceeded", Degraded},
		{nvml.Event{Type: nvml.EventOperational, Xid: 119, Operational: &nvml.Operational{Severity: "recoverable"}}, "ResetRequired raised: NVML event operational, recoverable", Unhealthy},
		// A code that is not in the catalogue says less than the severity.
		{nvml.Event{Type: nvml.EventOperational, Xid: 185, Operational: &nvml.Operational{Severity: "fatal"}}, "ResetRequired raised: NVML event operational, fatal", Unhealthy},
	} {
		s := newScript(t)
		s.driver(1, "a")
		s.event(10, gpuA, tt.event)
		s.says(gpuA + " " + tt.want)
		s.status(gpuA, tt.status)
	}
}

func TestOperationalFormOfAFaultIsNoFaultOfItsOwn(t *testing.T) {
	poison := nvml.Event{Type: nvml.EventFatalPoison}
	s := newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, poison)
	s.event(11, gpuA, operational("fatal"))
	s.says(gpuA + " UncorrectableMemory raised: NVML event fatal-poison")

	s = newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, operational("fatal"))
	s.event(11, gpuA, poison)
	s.says(
		gpuA+" ResetRequired raised: NVML event operational, fatal",
		gpuA+" UncorrectableMemory raised: NVML event fatal-poison",
		gpuA+" ResetRequired folded: NVML event operational, fatal is a symptom of NVML event fatal-poison",
	)
	if g, _ := view(s.state).GPU(gpuA); len(g.Conditions) != 1 {
		t.Errorf("conditions: %+v", g.Conditions)
	}

	// What fences is not taken into what does not.
	s = newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, operational("fatal"))
	s.event(11, gpuA, nvml.Event{Type: nvml.EventContainedPoison})
	s.status(gpuA, Unhealthy)
}

// A user's row for an Xid holds for the event that stands for it.
func TestEventFollowsTheRowOfItsXid(t *testing.T) {
	s := newScript(t)
	s.takes(0.5, `{"xid": 48, "ignore": true}`)
	s.driver(1, "a")
	s.event(10, gpuA, nvml.Event{Type: nvml.EventDoubleBitECC})
	s.says()

	s = newScript(t)
	s.driver(1, "a")
	s.event(10, gpuA, nvml.Event{Type: nvml.EventDoubleBitECC})
	s.told = nil
	s.takes(20, `{"xid": 48, "action": "contact-support"}`)
	if g, _ := view(s.state).GPU(gpuA); g.Conditions[0].Action != ActContactSupport {
		t.Errorf("a fault that an event began has the action %s", g.Conditions[0].Action)
	}
	s.takes(30, `{"xid": 48, "ignore": true}`)
	s.says(gpuA + " UncorrectableMemory cleared: policy")

	s = newScript(t)
	s.takes(0.5, `{"reason": "CorrectedErrors", "effect": "NoSchedule"}`)
	s.driver(1, "a")
	for i := range 3 {
		s.event(float64(10+10*i), gpuA, nvml.Event{Type: nvml.EventSingleBitStorm})
	}
	s.status(gpuA, Unhealthy)
}

func TestEveryEventRowHasAReasonOrDecidesNothing(t *testing.T) {
	p := DefaultPolicy()
	for _, row := range p.Events {
		row = p.InForce(row)
		if _, known := p.Reasons[row.Reason]; row.Reason != "" && !known || row.Reason == "" && row.Effect != NoEffect {
			t.Errorf("%s: %+v", row.Key(), row.Verdict)
		}
		if row.Source == "" {
			t.Errorf("%s has no source", row.Key())
		}
	}
}

func TestFloodOfEventsHasARecordASecond(t *testing.T) {
	r := repeats{}
	kept := 0
	for i := range 1000 {
		e := FromDriver(nvml.Event{Type: nvml.EventSingleBitECC, PCI: gpuA})
		e.Mono = time.Duration(i) * 5 * time.Millisecond
		if !r.swallow(&e, &Entry{}) {
			kept++
		}
		if e.saved() {
			t.Fatal("it waits for the disk")
		}
	}
	if kept != 5 {
		t.Errorf("%d records in five seconds, want 5", kept)
	}
	other := FromDriver(nvml.Event{Type: nvml.EventDoubleBitECC, PCI: gpuA})
	if r.swallow(&other, &Entry{}) || !other.saved() {
		t.Error("an event of another type has no record, or is not saved")
	}
}

// Through the scripted driver, whose library is one that tells every fault in its
// structured form too.
func TestDriverThatTellsEverythingTwiceHasOneFaultEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 3)
		n.do(t, 0, fake.Reload{CUDA: "13.4"})
		after(time.Minute)
		n.do(t, 0, fake.Event{Type: nvml.EventFatalPoison})
		n.do(t, 1, fake.ECC{Uncorrected: 1})
		n.do(t, 2, fake.Event{Type: nvml.EventContainedPoison})
		after(15 * time.Second)
		n.is(t, "Unhealthy Unhealthy Degraded")
		for _, g := range n.Snapshot().GPUs {
			if len(g.Conditions) != 1 {
				t.Errorf("%s: conditions %+v", g.PCI, g.Conditions)
			}
		}
		n.do(t, 2, fake.Fabric{State: "in-progress"})
		after(6 * time.Minute)
		n.is(t, "Unhealthy Unhealthy Unhealthy")
	})
}

func TestFaultThatNobodySeesHidesNoWarning(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindPCIeErrors, map[string]string{"text": "2 more non-fatal PCIe errors"})
	s.event(11, gpuA, nvml.Event{Type: nvml.EventOperational, Operational: &nvml.Operational{Severity: "recoverable", Attributes: []string{"threshold-exceeded"}}})
	s.says(gpuA + " HardwareWarning raised: NVML event operational, recoverable, threshold-exceeded")
}
