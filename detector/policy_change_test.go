package detector

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
)

// takes folds the event of a policy of some rows, and goes on with it.
func (s *script) takes(seconds float64, rows string) {
	s.t.Helper()
	s.takesSection(seconds, `"rows": [`+rows+`]`)
}

// takesSection does the same for a whole section.
func (s *script) takesSection(seconds float64, text string) {
	s.t.Helper()
	e := policyEvent(sectionPolicy(s.t, text))
	e.Time = at(seconds)
	s.fold(e)
	s.policy = DefaultPolicy().inForce(s.state)
}

// stands is the one condition of a GPU.
func (s *script) stands(pci string) Condition {
	s.t.Helper()
	i, ok := s.state.gpu(pci)
	if !ok || len(s.state.GPUs[i].Conditions) != 1 {
		s.t.Fatalf("%s: want one condition: %+v", pci, s.state.GPUs)
	}
	return s.state.GPUs[i].Conditions[0]
}

func TestStandingFaultFollowsTheNewPolicyAndTheOldOneAgain(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 119, "x")
	s.says(gpuA + " ResetRequired raised: Xid 119")
	before := s.stands(gpuA)

	s.takes(3, `{"reason": "ResetRequired", "effect": "NoExecute", "clear": "quiet", "quiet": "10m"}`)
	s.says(gpuA + " ResetRequired raised: policy")
	want := before
	want.Effect, want.Quiet = NoExecute, 10*time.Minute
	want.Ends, want.Ending = before.Mono+10*time.Minute, endQuiet
	if diff := cmp.Diff(want, s.stands(gpuA)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	s.takes(4, ``)
	s.says(gpuA + " ResetRequired raised: policy")
	if diff := cmp.Diff(before, s.stands(gpuA)); diff != "" {
		t.Errorf("after the default came back (-want +got):\n%s", diff)
	}

	s.takes(5, `{"reason": "ResetRequired", "clear": "quiet", "quiet": "10m"}`)
	s.gpu(602.5, gpuB, KindFresh, nil)
	s.says(gpuA + " ResetRequired cleared: quiet for 10m0s")
}

func TestIgnoredFaultEndsAndIsOnlyCounted(t *testing.T) {
	for _, row := range []string{`{"reason": "ResetRequired", "ignore": true}`, `{"xid": 119, "ignore": true}`} {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 119, "x")
		s.takes(3, row)
		s.says(gpuA+" ResetRequired raised: Xid 119", gpuA+" ResetRequired cleared: policy")
		s.status(gpuA, Healthy)
		s.xid(10, gpuA, 119, "x")
		s.says()
		if got := s.count(gpuA, 119); got != 2 {
			t.Errorf("%s: counted %d, want 2", row, got)
		}
		s.takes(11, ``)
		s.xid(20, gpuA, 119, "x")
		s.says(gpuA + " ResetRequired raised: Xid 119")
	}
}

// One code is ignored; another, or NVML, stands for the fault all the same.
func TestFaultOfWhichOneCodeIsIgnoredStands(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 119, "x")
	s.xid(2.5, gpuA, 109, "x")
	s.xid(2, gpuB, 79, "x")
	s.gpu(2.5, gpuB, KindGPULost, nil)
	s.told = nil
	s.takes(3, `{"xid": 119, "ignore": true}, {"xid": 79, "ignore": true}`)
	s.says()
	s.status(gpuA, Unhealthy)
	s.status(gpuB, Unhealthy)
}

func TestRowOfAReasonReachesSignsWithoutACode(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.takes(1.5, `{"reason": "GPULost", "effect": "NoExecute"}, {"reason": "FabricFault", "effect": "None"}, {"reason": "LinkWarning", "effect": "NoSchedule"}`)
	s.gpu(2, gpuA, KindGPUMissing, nil)
	s.line(2, "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 10003, Fatal, Link 46 egress something")
	s.line(2, "NVRM: Xid (PCI:0000:2a:00): 146, NEW_UNIT Nonfatal XC0 i0 Link 00 (0x00000000 0x00000000 0x00000000 0x00000000)")
	if c := s.stands(gpuA); c.Effect != NoExecute || c.Class != Hardware {
		t.Errorf("%+v", c)
	}
	if c := s.stands(gpuB); c.Effect != NoSchedule || c.Taint != TaintLink {
		t.Errorf("%+v", c)
	}
	if c := s.state.Node[0]; c.Effect != None {
		t.Errorf("%+v", c)
	}
}

func TestHoldOfAFaultThatIsToldOnceOutlastsARestartAndNoBoot(t *testing.T) {
	begin := func() *script {
		s := newScript(t)
		s.driver(1, "a")
		s.takes(2, `{"reason": "ResetRequired", "hold": "1m"}, {"reason": "FabricFault", "hold": "1m"}`)
		s.xid(3, gpuA, 119, "x")
		s.line(3, "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 10003, Fatal, Link 46 egress something")
		s.says()
		return s
	}
	s := begin()
	s.start(10, "boot-1")
	s.gpu(64, gpuB, KindFresh, nil)
	s.says(gpuA+" ResetRequired raised: Xid 119", " FabricFault raised: SXid 10003")

	s = begin()
	s.start(10, "boot-2")
	s.gpu(100, gpuB, KindFresh, nil)
	s.says()
	if len(s.state.Node) > 0 {
		t.Errorf("node: %+v", s.state.Node)
	}
}

func TestHeldFaultFollowsTheNewHold(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(2, gpuA, KindUnresponsive, nil)
	s.takes(3, `{"reason": "Unresponsive", "hold": "5m"}`)
	s.gpu(120, gpuB, KindFresh, nil)
	s.says()
	s.takes(121, `{"reason": "Unresponsive", "hold": "2m5s"}`)
	s.gpu(130, gpuB, KindFresh, nil)
	s.says(gpuA + " Unresponsive raised: driver calls do not return")
	if last := s.state.Recent[len(s.state.Recent)-1]; !last.Time.Equal(at(127)) {
		t.Errorf("raised at %s, want %s", last.Time, at(127))
	}
}

func TestPolicyChangeIsNotedOnceAndSharesNothing(t *testing.T) {
	s := newScript(t)
	s.takes(1, ``)
	s.takes(2, ``)
	if len(s.noted) > 0 {
		t.Errorf("the default was noted: %q", s.noted)
	}
	s.takes(3, `{"xid": 31, "ignore": true}`)
	s.takes(4, `{"xid": 31, "ignore": true}`)
	if want := "PolicyChanged: " + s.policy.Digest() + ", rows that differ from the default: 1"; len(s.noted) != 1 || s.noted[0] != want {
		t.Errorf("noted %q, want once %q", s.noted, want)
	}
	if s.state.Policy != s.policy.Digest() {
		t.Errorf("state has policy %s, in force is %s", s.state.Policy, s.policy.Digest())
	}
}

// changing is a history in which the policy changes under standing faults.
func changing(t *testing.T) []Event {
	t.Helper()
	var events []Event
	n := uint64(0)
	add := func(seconds float64, e Event) {
		n++
		e.Boot, e.Time, e.Mono = "boot-1", at(seconds), time.Hour+time.Duration(seconds*float64(time.Second))
		e.ID = fmt.Sprintf("boot-1/%s/%d", e.Source, n)
		events = append(events, e)
	}
	xid := func(seconds float64, pci string, code int) {
		add(seconds, Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: pci}, Xid: &Report{Code: code}})
	}
	takes := func(seconds float64, rows string) { add(seconds, policyEvent(policyOf(t, rows))) }
	add(0, Event{Source: SourceDaemon, Kind: KindBoot})
	takes(0, ``)
	add(1, Event{Source: SourceState, Kind: KindDriverLoaded, Fields: map[string]string{"version": "570.1", "load": "a"}})
	for _, pci := range []string{gpuA, gpuB} {
		add(1, Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: pci}})
	}
	xid(2, gpuA, 119)
	xid(2, gpuB, 94)
	takes(3, `{"reason": "ResetRequired", "effect": "NoExecute"}, {"xid": 94, "effect": "NoSchedule"}, {"reason": "DriverFault", "hold": "30s"}`)
	add(4, Event{Source: SourceKernelLog, Kind: KindInit, GPU: Device{PCI: gpuB}})
	xid(5, gpuB, 109)
	takes(6, `{"xid": 119, "ignore": true}, {"reason": "ContainedMemoryError", "quiet": "2m"}, {"reason": "DriverFault", "hold": "1m"}`)
	xid(7, gpuA, 31)
	xid(8, gpuA, 119)
	takes(100, ``)
	xid(101, gpuA, 119)
	add(4000, Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: gpuA}})
	return events
}

func TestPolicyIsReplayedFromTheEventsAlone(t *testing.T) {
	if told := agreed(t, changing(t)); len(told) != 17 {
		for _, tr := range told {
			t.Log(tr.Seq, tr.PCI, tr.Condition, tr.Status, tr.Effect, tr.Cause)
		}
		t.Errorf("%d transitions", len(told))
	}
}

// agreed is what a history tells, if a replay and a daemon that is restarted after
// each event tell the same.
func agreed(t *testing.T, events []Event) []Transition {
	t.Helper()
	sequence := func(yield func(Event, error) bool) {
		for _, e := range events {
			data, err := json.Marshal(Entry{Event: &e}) // as the trail has it
			if err != nil {
				t.Fatal(err)
			}
			entry, err := DecodeEntry(data)
			if !yield(*entry.Event, err) {
				return
			}
		}
	}
	var replayed []Transition
	for tr, err := range Replay(DefaultPolicy(), sequence) {
		if err != nil {
			t.Fatal(err)
		}
		replayed = append(replayed, tr)
	}
	// A restart after every event: nothing goes on but what was saved.
	var live []Transition
	saved := Saved{State: &State{}}
	for _, e := range events {
		policy := DefaultPolicy().inForce(saved.State)
		next, transitions, _ := fold(saved.State, policy, e)
		live = append(live, transitions...)
		data, err := json.Marshal(Saved{State: next})
		if err != nil {
			t.Fatal(err)
		}
		if saved, err = DecodeSaved(data); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(live, replayed, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-restarted +replayed):\n%s", diff)
	}
	return replayed
}

func TestOnlyWhatIsIgnoredNoMoreIsUnhidden(t *testing.T) {
	plain, ignoring := DefaultPolicy(), policyOf(t, `{"reason": "GPULost", "ignore": true}`)
	more := policyOf(t, `{"reason": "GPULost", "ignore": true}, {"reason": "LinkFault", "ignore": true}`)
	for _, tt := range []struct {
		is, before *Policy
		want       bool
	}{{plain, ignoring, true}, {ignoring, more, true}, {ignoring, plain, false}, {more, ignoring, false}, {plain, plain, false}} {
		if got := tt.is.Unhides(tt.before); got != tt.want {
			t.Errorf("%v after %v: %v", tt.is.Rows, tt.before.Rows, got)
		}
	}
}

func TestDetectorGoesOnWithTheSavedPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		first, _ := running(t, Config{Store: store})
		p := policyOf(t, `{"reason": "GPULost", "effect": "NoExecute"}`)
		first.SetPolicy(p)
		if diff := cmp.Diff(p, first.Policy()); diff != "" {
			t.Errorf("in force (-set +got):\n%s", diff)
		}
		time.Sleep(2 * time.Second)
		second := New(Config{Policy: DefaultPolicy(), Saved: store.last(t), Boot: "boot-1"})
		second.Emit(lost(gpuA, 1))
		if g, _ := second.Snapshot().GPU(gpuA); len(g.Conditions) != 1 || g.Conditions[0].Effect != NoExecute {
			t.Errorf("after a restart: %+v", g)
		}
		second.SetPolicy(DefaultPolicy())
		if g, _ := second.Snapshot().GPU(gpuA); g.Conditions[0].Effect != NoSchedule || second.Policy().Digest() != DefaultPolicy().Digest() {
			t.Errorf("after the default came back: %+v", g)
		}
	})
}

// What a policy ignored is told again under the next one, also where it was told
// and has not changed.
func TestForgottenFactsAreToldAgain(t *testing.T) {
	var told []Kind
	f := NewFacts(time.Minute, func(e Event) { told = append(told, e.Kind) })
	now := at(0)
	look := func() {
		f.Observe(nvml.Observation{Time: now, Inventory: &nvml.Inventory{Load: "a", GPUs: []nvml.GPU{{PCI: gpuA}}}, Indexes: map[string]int{gpuA: 0}})
		f.Observe(nvml.Observation{Time: now, PCI: gpuA, Err: nvml.ErrLost})
	}
	look()
	told = nil
	look()
	if told != nil {
		t.Errorf("told again without need: %v", told)
	}
	f.Forget()
	look()
	if diff := cmp.Diff([]Kind{KindGPUFound, KindGPULost, KindResponsive}, told); diff != "" {
		t.Errorf("(-want +told):\n%s", diff)
	}
	told = nil
	stuck := nvml.Observation{Time: now, InventoryErr: nvml.ErrStuck}
	f.Observe(stuck)
	f.Observe(stuck)
	f.Forget()
	f.Observe(stuck)
	f.Observe(stuck)
	if diff := cmp.Diff([]Kind{KindDriverStuck, KindDriverStuck}, told); diff != "" {
		t.Errorf("of a stuck driver (-want +told):\n%s", diff)
	}
}
