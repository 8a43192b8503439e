package detector

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

func (s *script) pause(seconds float64, fields map[string]string) {
	s.t.Helper()
	s.fold(Event{Source: SourceHand, Kind: KindPaused, Time: at(seconds), Fields: fields})
}

func (s *script) resume(seconds float64, fields map[string]string) {
	s.t.Helper()
	s.fold(Event{Source: SourceHand, Kind: KindResumed, Time: at(seconds), Fields: fields})
}

// tick lets time pass in the fold.
func (s *script) tick(seconds float64) {
	s.t.Helper()
	s.fold(Event{Source: SourceKernelLog, Kind: KindRecovery, Time: at(seconds)})
}

// notes gives what was noted of pauses since it was asked last.
func (s *script) notes() []string {
	var notes []string
	for _, n := range s.noted {
		if !strings.HasPrefix(n, "Driver") {
			notes = append(notes, n)
		}
	}
	s.noted = nil
	return notes
}

func (s *script) wants(want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.notes()); diff != "" {
		s.t.Errorf("noted (-want +got):\n%s", diff)
	}
}

var (
	byAlice      = map[string]string{"for": "10m", "by": ByHand, "author": "alice", "why": "reset GPU 0"}
	byAnnotation = map[string]string{"for": "10m", "by": ByAnnotation, "value": "10m"}
	byUpgrade    = map[string]string{"for": "1h", "by": ByUpgrade, "value": "drain-required"}
)

func by(who string) map[string]string { return map[string]string{"by": who} }

const aliceUntil = "paused by hand (alice) until 2026-11-21T12:10:10Z: reset GPU 0"

func TestPausedGPUsAreUnknownAndMarkedAndKeepTheirFaults(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuB, 79, "GPU has fallen off the bus.")
	s.told = nil
	s.pause(10, byAlice)
	s.says(gpuA+" Unmonitored raised: "+aliceUntil, gpuB+" Unmonitored raised: "+aliceUntil)
	s.wants("Paused: " + aliceUntil)
	s.status(gpuA, Unknown)
	s.status(gpuB, Unhealthy)
	g, _ := view(s.state).GPU(gpuA)
	want := []Condition{{
		Reason: Unmonitored, Class: Information, Scope: ScopeGPU, Effect: None, Action: ActNone, Taint: TaintUnmonitored, Cause: aliceUntil,
		Since: at(10), Last: at(10), Mono: time.Hour + 10*time.Second, Count: 1, Incident: "boot-1/hand/1", Fact: SourceHand, Boot: "boot-1",
	}}
	if diff := cmp.Diff(want, g.Conditions); diff != "" || g.Fresh {
		t.Errorf("fresh: %t; (-want +got):\n%s", g.Fresh, diff)
	}
	pause := &Pause{Since: at(10), Until: at(610), Ends: time.Hour + 610*time.Second, By: ByHand, Author: "alice", Why: "reset GPU 0"}
	if diff := cmp.Diff(pause, view(s.state).Pause); diff != "" {
		t.Errorf("pause (-want +got):\n%s", diff)
	}
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(11), GPU: Device{PCI: gpuA}})
	s.status(gpuA, Unknown)
	// An answer that was on its way says nothing, and the kernel log goes on.
	s.well(12, gpuA)
	s.status(gpuA, Unknown)
	s.told = nil
	s.xid(13, gpuA, 94, "Contained")
	s.xid(13, "0000:3b:00.0", 31, "MMU Fault")
	s.says(gpuA+" ContainedMemoryError raised: Xid 94",
		"0000:3b:00.0 ApplicationFault raised: Xid 31", "0000:3b:00.0 Unmonitored raised: "+aliceUntil)
}

func TestPauseEndsByItselfByHandAndByAReboot(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(s *script)
		why  string
		when float64
	}{
		"its time":   {func(s *script) { s.tick(700) }, "its time is over", 610},
		"by hand":    {func(s *script) { s.resume(20, map[string]string{"by": ByHand, "author": "bob"}) }, "resumed by hand (bob)", 20},
		"a reboot":   {func(s *script) { s.start(30, "boot-2") }, "node was rebooted", 30},
		"while down": {func(s *script) { s.start(1000, "boot-1") }, "its time is over", 610},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.pause(10, byAlice)
			s.told, s.noted = nil, nil
			end.do(s)
			s.says(gpuA+" Unmonitored cleared: "+end.why, gpuB+" Unmonitored cleared: "+end.why)
			s.wants("Resumed: " + end.why)
			for _, tr := range s.state.Recent {
				if tr.Condition == NotedResumed && !tr.Time.Equal(at(end.when)) {
					t.Errorf("it ended at %s, want %s", tr.Time, at(end.when))
				}
			}
			if view(s.state).Pause != nil {
				t.Error("still paused")
			}
		})
	}
}

func TestGPUIsUnknownAfterAPauseUntilItAnswers(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.pause(10, byAlice)
	s.gpu(11, gpuA, KindStale, nil)
	s.resume(20, by(ByHand))
	s.status(gpuA, Unknown)
	s.well(21, gpuA)
	s.status(gpuA, Healthy)
}

func TestPauseSurvivesARestart(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.pause(10, byAlice)
	saved, err := json.Marshal(Saved{State: s.state})
	if err != nil {
		t.Fatal(err)
	}
	restored, err := DecodeSaved(saved)
	if err != nil {
		t.Fatal(err)
	}
	s.state = restored.State
	s.start(300, "boot-1")
	s.status(gpuA, Unknown)
	if snapshot := view(s.state); snapshot.Pause == nil || !snapshot.Ready() {
		t.Errorf("pause %v, ready %t: a pause is an answer", snapshot.Pause, snapshot.Ready())
	}
	s.noted = nil
	s.tick(609)
	s.wants()
	s.tick(611)
	s.wants("Resumed: its time is over")
}

func TestSecondPauseReplacesTheFirst(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.pause(10, byAlice)
	s.told = nil
	s.pause(20, map[string]string{"for": "1m", "by": ByHand})
	s.says() // the GPUs are unmonitored as before, for another reason
	if g, _ := view(s.state).GPU(gpuA); g.Conditions[0].Cause != "paused by hand until 2026-11-21T12:01:20Z" {
		t.Errorf("cause: %s", g.Conditions[0].Cause)
	}
	s.tick(81)
	if s.state.Pause != nil {
		t.Error("the first pause is still in force")
	}
}

func TestUpgradeLeavesALongerPauseAsItIs(t *testing.T) {
	s := newScript(t)
	s.pause(10, map[string]string{"for": "4h", "by": ByHand})
	s.pause(20, byUpgrade)
	s.resume(30, by(ByUpgrade))
	if p := s.state.Pause; p == nil || p.By != ByHand {
		t.Errorf("pause: %v", p)
	}
	s.pause(40, map[string]string{"for": "1m", "by": ByHand})
	s.pause(50, byUpgrade)
	if p := s.state.Pause; p.By != ByUpgrade {
		t.Errorf("pause: %v", p)
	}
	s.pause(60, map[string]string{"for": "1m", "by": ByHand})
	if p := s.state.Pause; p.By != ByUpgrade {
		t.Errorf("the driver would be opened within its upgrade: %v", p)
	}
}

func TestRequestIsNotBegunAgainBeforeItChanges(t *testing.T) {
	s := newScript(t)
	handled := func() map[string]string { return s.state.Requests.Handled }
	s.pause(10, byAnnotation)
	s.pause(11, byUpgrade)
	if want := map[string]string{ByAnnotation: "10m", ByUpgrade: "drain-required"}; !cmp.Equal(want, handled()) {
		t.Errorf("handled: %v", handled())
	}
	s.resume(20, by(ByHand))
	s.tick(5000)
	if len(handled()) != 2 {
		t.Errorf("handled: %v, though both are still on the node", handled())
	}
	// The label's upgrade is begun again under another boot, the annotation's
	// time has passed.
	s.start(6000, "boot-2")
	if want := map[string]string{ByAnnotation: "10m"}; !cmp.Equal(want, handled()) {
		t.Errorf("handled: %v", handled())
	}
	s.resume(6001, by(ByAnnotation))
	if len(handled()) != 0 {
		t.Errorf("handled: %v, though it was taken away", handled())
	}
}

func TestAnnotationEndsOnlyWhatItBegan(t *testing.T) {
	s := newScript(t)
	s.pause(10, byAlice)
	s.resume(11, by(ByAnnotation))
	if s.state.Pause == nil {
		t.Error("the annotation has ended a pause by hand")
	}
	s.pause(12, byAnnotation)
	s.resume(13, by(ByAnnotation))
	if s.state.Pause != nil {
		t.Error("the annotation was taken away, and its pause is still in force")
	}
}

func TestBadAnnotationChangesNothingAndIsShown(t *testing.T) {
	s := newScript(t)
	s.pause(10, byAnnotation)
	s.fold(Event{Source: SourceNode, Kind: KindPauseRefused, Time: at(11), Fields: map[string]string{"value": "soon", "cause": "no duration"}})
	if s.state.Pause == nil || view(s.state).Requests.Refused[ByAnnotation] != "no duration" || s.state.Requests.Handled[ByAnnotation] != "soon" {
		t.Errorf("pause %v, requests %+v", s.state.Pause, s.state.Requests)
	}
	s.pause(12, byAnnotation)
	if len(view(s.state).Requests.Refused) > 0 {
		t.Error("a good annotation did not end the complaint")
	}
}

func TestPauseOfNoLengthIsNone(t *testing.T) {
	for _, text := range []string{"", "0s", "500ms", "-1m", "25h", "10", "ten minutes"} {
		s := newScript(t)
		s.pause(10, map[string]string{"for": text, "by": ByHand})
		if s.state.Pause != nil {
			t.Errorf("paused for %q", text)
		}
	}
}

func TestNothingCountsAsHungForTheTimeOfAPause(t *testing.T) {
	for name, hang := range map[string]float64{"before": 5, "within": 15} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			do := []func(){
				func() { s.gpu(hang, gpuA, KindUnresponsive, nil) },
				func() { s.pause(10, byAlice) },
			}
			if hang > 10 {
				slices.Reverse(do)
			}
			for _, f := range do {
				f()
			}
			s.line(20, "NVRM: _kgspIsHeartbeatTimedOut: GSP RM heartbeat timed out")
			s.tick(500)
			s.told = nil
			s.resume(510, by(ByHand))
			s.tick(560)
			s.says(gpuA+" Unmonitored cleared: resumed by hand", gpuB+" Unmonitored cleared: resumed by hand")
			s.tick(571)
			s.says(gpuA + " Unresponsive raised: driver calls do not return")
		})
	}
}

func TestDriverIsClosedForAPauseAndAskedAgainAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.is(t, "Healthy Healthy")
		n.submit(t, KindPaused, map[string]string{"for": "10m", "by": ByHand})
		if closed, err := n.valve.Closed(); !closed || err != nil {
			t.Errorf("closed %t, %v", closed, err)
		}
		if n.releases.Load() != 1 {
			t.Errorf("%d releases", n.releases.Load())
		}
		n.is(t, "Unknown Unknown")
		n.do(t, 0, fake.Reload{})
		after(5 * time.Minute)
		n.do(t, 1, fake.Xid{Code: 94}) // only the kernel log can tell
		after(time.Second)
		if g := n.Snapshot().GPUs[1]; len(g.Xids) != 1 {
			t.Errorf("the kernel log was not read: %+v", g)
		}
		after(5*time.Minute + time.Second)
		n.is(t, "Healthy Degraded")
		n.do(t, 0, fake.Xid{Code: 31})
		after(time.Second)
		if got := n.Snapshot().Counters.Events[SourceEvents+"/"+string(KindXid)]; got != 1 {
			t.Errorf("NVML told of %d Xids after the pause, want 1", got)
		}
	})
}

func TestShortPauseLeavesNobodyUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		for _, length := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 2 * time.Second} {
			n.submit(t, KindPaused, map[string]string{"for": "10m", "by": ByHand})
			time.Sleep(length)
			n.submit(t, KindResumed, by(ByHand))
			after(2 * time.Second)
			n.is(t, "Healthy")
		}
	})
}

func TestClosingIsTriedUntilNothingHoldsTheDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		held := errors.New("worker is stuck")
		n.holds.Store(&held)
		n.submit(t, KindPaused, map[string]string{"for": "10m", "by": ByHand})
		if closed, err := n.valve.Closed(); closed || !errors.Is(err, held) {
			t.Errorf("closed %t, %v", closed, err)
		}
		n.holds.Store(nil)
		after(time.Second)
		if closed, _ := n.valve.Closed(); !closed {
			t.Error("it was not tried again")
		}
		n.holds.Store(&held)
		n.submit(t, KindResumed, by(ByHand))
		if _, err := n.valve.Inventory(t.Context()); errors.Is(err, nvml.ErrPaused) {
			t.Error("still closed after the pause")
		}
	})
}

func (n *node) submit(t *testing.T, kind Kind, fields map[string]string) {
	t.Helper()
	if _, err := n.Submit(t.Context(), Event{Source: SourceHand, Kind: kind, Fields: fields}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}
