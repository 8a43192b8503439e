package detector

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	gpuA = "0000:18:00.0"
	gpuB = "0000:2a:00.0"
)

// script folds events one after the other, each at so many seconds after a
// fixed beginning.
type script struct {
	t      *testing.T
	policy *Policy
	state  *State
	boot   string
	booted time.Time
	n      map[string]uint64
	told   []string
	noted  []string
}

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{t: t, policy: DefaultPolicy(), state: &State{}, n: map[string]uint64{}}
	s.start(0, "boot-1")
	return s
}

var beginning = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return beginning.Add(time.Duration(seconds * float64(time.Second)))
}

func (s *script) fold(e Event) {
	s.t.Helper()
	if e.Boot == "" {
		e.Boot = s.boot
	}
	if e.Mono == 0 {
		e.Mono = e.Time.Sub(s.booted)
	}
	if e.ID == "" {
		s.n[e.Source]++
		e.ID = fmt.Sprintf("%s/%s/%d", e.Boot, e.Source, s.n[e.Source])
	}
	before, err := json.Marshal(s.state)
	if err != nil {
		s.t.Fatal(err)
	}
	next, transitions, _ := fold(s.state, s.policy, e)
	if after, _ := json.Marshal(s.state); string(before) != string(after) {
		s.t.Fatalf("folding %s changed the state before it:\n%s", e.Kind, cmp.Diff(string(before), string(after)))
	}
	s.state = next
	for _, t := range transitions {
		if t.Status == Noted {
			s.noted = append(s.noted, fmt.Sprintf("%s: %s", t.Condition, t.Cause))
			continue
		}
		s.told = append(s.told, fmt.Sprintf("%s %s %s: %s", t.PCI, t.Condition, t.Status, t.Cause))
	}
}

func (s *script) start(seconds float64, boot string) {
	s.t.Helper()
	if s.boot == "" {
		s.booted = at(seconds).Add(-time.Hour)
	} else if s.boot != boot {
		s.booted = at(seconds).Add(-time.Minute)
	}
	s.boot = boot
	s.fold(Event{Source: SourceDaemon, Kind: KindBoot, Time: at(seconds)})
}

// driver loads the driver with two GPUs that are well.
func (s *script) driver(seconds float64, load string) {
	s.t.Helper()
	s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(seconds), Fields: map[string]string{"version": "570.195.03", "load": load, "ago": "500ms"}})
	for i, pci := range []string{gpuA, gpuB} {
		s.fold(Event{
			Source: SourceState, Kind: KindGPUFound, Time: at(seconds), GPU: Device{PCI: pci, UUID: "GPU-" + pci},
			Fields: map[string]string{"index": strconv.Itoa(i), "minor": strconv.Itoa(i)},
		})
		s.well(seconds, pci)
	}
}

func (s *script) well(seconds float64, pci string) {
	s.t.Helper()
	s.gpu(seconds, pci, KindGPUBack, nil)
	s.gpu(seconds, pci, KindRecoveryAction, map[string]string{"action": "0"})
	s.gpu(seconds, pci, KindFresh, nil)
}

func (s *script) gpu(seconds float64, pci string, kind Kind, fields map[string]string) {
	s.t.Helper()
	s.fold(Event{Source: SourceState, Kind: kind, Time: at(seconds), GPU: Device{PCI: pci}, Fields: fields})
}

// rest lets time pass in which the GPUs go on as they are.
func (s *script) rest(seconds float64) {
	s.t.Helper()
	s.fold(Event{Source: "nobody", Kind: "Rest", Time: at(seconds)})
}

func (s *script) line(seconds float64, text string) {
	s.t.Helper()
	e, ok := NewKernelLog().event([]byte(text))
	if !ok {
		s.t.Fatalf("no event: %s", text)
	}
	e.Time = at(seconds)
	s.fold(e)
}

func (s *script) xid(seconds float64, pci string, code int, text string) {
	s.t.Helper()
	s.line(seconds, fmt.Sprintf("NVRM: Xid (PCI:%s): %d, %s", strings.TrimSuffix(pci, ".0"), code, text))
}

func (s *script) nvml(seconds float64, pci string, code int) {
	s.t.Helper()
	s.fold(Event{Source: SourceEvents, Kind: KindXid, Time: at(seconds), GPU: Device{PCI: pci}, Xid: &Report{Code: code}})
}

func (s *script) says(want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.told); diff != "" {
		s.t.Errorf("transitions (-want +got):\n%s", diff)
	}
	s.told = nil
}

func (s *script) status(pci string, want Status) {
	s.t.Helper()
	g, ok := view(s.state).GPU(pci)
	if !ok {
		s.t.Fatalf("no GPU %s", pci)
	}
	if g.Status != want {
		s.t.Errorf("%s is %s, want %s", pci, g.Status, want)
	}
}

func (s *script) count(pci string, code int) uint64 {
	g, _ := view(s.state).GPU(pci)
	for _, x := range g.Xids {
		if x.Code == code {
			return x.Count
		}
	}
	return 0
}

func TestXidOnOneGPUCondemnsOnlyThatGPU(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	s.says(gpuA + " GPULost raised: Xid 79")
	s.status(gpuA, Unhealthy)
	s.status(gpuB, Healthy)
}

func TestTwoReportersOfOneXidAreOneFault(t *testing.T) {
	for _, tt := range []struct {
		name  string
		play  func(*script)
		count uint64
	}{
		{"kernel log first", func(s *script) { s.xid(2, gpuA, 119, "x"); s.nvml(2.1, gpuA, 119) }, 1},
		{"NVML first", func(s *script) { s.nvml(2, gpuA, 119); s.xid(2.1, gpuA, 119, "x") }, 1},
		{"the larger count wins", func(s *script) {
			s.nvml(2, gpuA, 119)
			s.xid(2.1, gpuA, 119, "x")
			s.xid(2.2, gpuA, 119, "x")
			s.xid(2.3, gpuA, 119, "x")
			s.nvml(2.4, gpuA, 119)
		}, 3},
		{"the second reporter is late at the window's edge", func(s *script) {
			s.xid(2, gpuA, 119, "x")
			s.nvml(2.05, gpuA, 119)
			s.xid(3.99, gpuA, 119, "x")
			s.nvml(4.04, gpuA, 119)
		}, 2},
		{"three seconds apart are two", func(s *script) { s.nvml(2, gpuA, 119); s.xid(5, gpuA, 119, "x") }, 2},
		{"another GPU is another fault", func(s *script) { s.nvml(2, gpuB, 119); s.xid(2, gpuA, 119, "x") }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			tt.play(s)
			if got := s.count(gpuA, 119); got != tt.count {
				t.Errorf("counted %d, want %d", got, tt.count)
			}
		})
	}
}

func TestEventMetAgainChangesNothing(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	e := Event{ID: "boot-1/kmsg/77", Source: SourceKernelLog, Kind: KindXid, Time: at(2), GPU: Device{PCI: gpuA}, Xid: &Report{Code: 79}}
	s.fold(e)
	once := s.state
	s.fold(e)
	s.fold(Event{ID: "boot-1/kmsg/76", Source: SourceKernelLog, Kind: KindXid, Time: at(3), GPU: Device{PCI: gpuA}, Xid: &Report{Code: 13}})
	if diff := cmp.Diff(once, s.state); diff != "" {
		t.Errorf("state changed (-once +again):\n%s", diff)
	}
}

func TestApplicationFaultNeverFences(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 31, "pid=7, name=python, Ch 00000003, MMU Fault")
	s.says(gpuA + " ApplicationFault raised: Xid 31")
	s.status(gpuA, Healthy)
	s.well(700, gpuA)
	s.says(gpuA + " ApplicationFault cleared: quiet for 10m0s")
}

func TestXid45IsPutDownToTheFaultBeforeIt(t *testing.T) {
	t.Run("alone it is the application's", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 45, "pid=7, name=python, Ch 00000001")
		s.says(gpuA + " ApplicationFault raised: Xid 45")
	})
	t.Run("after a fault", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 109, "Ch 00000076, errorString CTX SWITCH TIMEOUT, Info 0x3c046")
		for i := range 100 {
			s.xid(3+float64(i)/100, gpuA, 45, "pid=7, name=python, Ch 00000001")
		}
		s.says(gpuA+" ResetRequired raised: Xid 109",
			gpuA+" ApplicationFault folded: Xid 45 is a symptom of Xid 109")
	})
	t.Run("named by the driver, of a fault that left none here", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 45, "pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149")
		s.says()
		if got := s.count(gpuA, 45); got != 1 {
			t.Errorf("counted %d, want 1", got)
		}
	})
}

func TestLostGPUSwallowsWhatItPrintsAfterwards(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	s.line(2.1, "NVRM: GPU "+gpuA+": GPU has fallen off the bus.")
	s.xid(3, gpuA, 119, "Timeout after 6s of waiting for RPC response from GPU0 GSP!")
	s.says(gpuA+" GPULost raised: Xid 79", gpuA+" ResetRequired folded: Xid 119 is a symptom of Xid 79")
}

func TestResetClassFaultEndsByEvidenceOnly(t *testing.T) {
	fault := func(s *script) {
		s.driver(1, "a")
		s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
		s.gpu(3, gpuA, KindGPULost, nil)
		s.told = nil
	}
	for _, tt := range []struct {
		name string
		play func(*script)
		want []string
	}{
		{"time is not enough", func(s *script) { s.well(86400, gpuB) }, nil},
		{"it answers again", func(s *script) { s.well(10, gpuA); s.rest(39.9) }, nil},
		{"it answers again for a while", func(s *script) { s.well(10, gpuA); s.rest(40) }, []string{gpuA + " GPULost cleared: it answers again"}},
		{"it answers and asks for a reboot", func(s *script) {
			s.well(10, gpuA)
			s.gpu(11, gpuA, KindRecoveryAction, map[string]string{"action": "2"})
			s.rest(3600)
		}, []string{gpuA + " RebootRequired raised: recovery action node-reboot"}},
		{"it answers, and then not", func(s *script) { s.well(10, gpuA); s.gpu(35, gpuA, KindStale, nil); s.rest(3600) }, nil},
		{"it answers, and the daemon stops", func(s *script) { s.well(10, gpuA); s.start(3600, "boot-1"); s.rest(7200) }, nil},
		{"driver loaded again", func(s *script) { s.driver(10, "b"); s.rest(39.9) }, nil},
		{"driver loaded again, and well", func(s *script) { s.driver(10, "b"); s.rest(40) }, []string{gpuA + " GPULost cleared: driver was loaded again"}},
		{"driver loaded again, still lost", func(s *script) {
			s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(10), Fields: map[string]string{"load": "b", "ago": "500ms"}})
			s.gpu(10, gpuA, KindGPULost, nil)
		}, nil},
		{"driver loaded again, asks for a reset", func(s *script) {
			s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(10), Fields: map[string]string{"load": "b", "ago": "500ms"}})
			s.gpu(11, gpuA, KindGPUBack, nil)
			s.gpu(11, gpuA, KindRecoveryAction, map[string]string{"action": "1"})
			s.gpu(11, gpuA, KindFresh, nil)
			s.rest(3600)
		}, []string{gpuA + " ResetRequired raised: recovery action gpu-reset"}},
		{"restart of the daemon", func(s *script) { s.start(10, "boot-1"); s.driver(11, "a"); s.rest(20) }, nil},
		{"reboot", func(s *script) { s.start(10, "boot-2"); s.driver(11, "c"); s.rest(41) }, []string{gpuA + " GPULost cleared: node was rebooted"}},
		{"reboot without a driver", func(s *script) {
			s.start(10, "boot-2")
			s.fold(Event{Source: SourceState, Kind: KindDriverMissing, Time: at(11), Fields: map[string]string{"cause": "x"}})
		}, nil},
		{"by hand", func(s *script) {
			s.gpu(9, gpuA, KindGPUBack, nil)
			s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(10), GPU: Device{PCI: gpuA}, Fields: map[string]string{"author": "ada"}})
		}, []string{gpuA + " GPULost cleared: by hand (ada)"}},
		{"by hand while NVML still says so", func(s *script) {
			s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(10), GPU: Device{PCI: gpuA}})
		}, nil},
		{"by hand while NVML still says so, and then not", func(s *script) {
			s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(10), GPU: Device{PCI: gpuA}})
			s.well(11, gpuA)
			s.rest(41)
		}, []string{gpuA + " GPULost cleared: it answers again"}},
		{"by hand, another reason", func(s *script) {
			s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(10), GPU: Device{PCI: gpuA}, Fields: map[string]string{"reason": "LinkFault"}})
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			fault(s)
			tt.play(s)
			s.says(tt.want...)
		})
	}
}

func TestLateSignDoesNotReopenWhatWasCleared(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(20, gpuA, 119, "x")
	s.driver(30, "b")
	s.rest(61)
	s.told = nil
	s.xid(15, gpuA, 119, "x")
	s.says()
	if s.state.Counters.Late != 1 {
		t.Errorf("late signs: %d, want 1", s.state.Counters.Late)
	}
	if got := s.count(gpuA, 119); got != 2 {
		t.Errorf("counted %d, want 2: a late Xid is still an Xid", got)
	}
	s.xid(70, gpuA, 119, "x")
	s.says(gpuA + " ResetRequired raised: Xid 119")
}

func TestSignsOfThisBootReadAfterItsStartCount(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	s.start(100, "boot-2")
	s.xid(60, gpuA, 79, "GPU has fallen off the bus.") // between the boot and our start
	s.told = nil
	s.driver(101, "c")
	s.says()
	s.status(gpuA, Unhealthy)
}

func TestRecoveryActionIsTheReferee(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)")
	s.says(gpuA + " RebootRequired raised: recovery action node-reboot")
	s.xid(3, gpuA, 154, "GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)")
	s.says(gpuA + " RebootRequired cleared: the driver no longer says so")
	s.status(gpuA, Healthy)
}

func TestRowRemapPendingIsDegradedUntilTheDriverAsks(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 63, "Row Remapper: New row (0x18f31d80) marked for remapping, reset gpu to activate.")
	s.says()
	s.gpu(3, gpuA, KindRemapPending, map[string]string{"pending": "true"})
	s.status(gpuA, Degraded)
	s.gpu(4, gpuA, KindRecoveryAction, map[string]string{"action": "1"})
	s.status(gpuA, Unhealthy)
}

func TestMemoryIncidentWithRemapMeansDrainFirst(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 48, "An uncorrectable double bit error (DBE) has been detected")
	s.xid(2.1, gpuA, 63, "Row Remapper: New row marked for remapping")
	g, _ := view(s.state).GPU(gpuA)
	if len(g.Conditions) != 1 || g.Conditions[0].Action != ActDrainAndReset {
		t.Errorf("conditions: %+v", g.Conditions)
	}
	s.says(gpuA+" UncorrectableMemory raised: Xid 48", gpuA+" UncorrectableMemory folded: Xid 63")
}

func TestUnresponsiveIsHeldAMinute(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindUnresponsive, nil)
	s.status(gpuA, Unknown)
	s.gpu(60, gpuB, KindFresh, nil)
	s.says()
	s.gpu(71, gpuB, KindFresh, nil)
	s.says(gpuA + " Unresponsive raised: driver calls do not return")
	s.gpu(80, gpuA, KindResponsive, nil)
	s.well(80, gpuA)
	s.says(gpuA + " Unresponsive cleared: no longer so")
	s.status(gpuA, Healthy)
}

func TestTransientThatNobodySawIsNeverAnnouncedAsGone(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindUnresponsive, nil)
	s.gpu(20, gpuA, KindResponsive, nil)
	s.well(20, gpuA)
	s.gpu(200, gpuB, KindFresh, nil)
	s.says()
}

func TestDeadlinesFireInOrderWithTheirOwnTime(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 13, "Graphics Exception")
	s.xid(1.5, gpuB, 13, "Graphics Exception")
	next, transitions, deadline := expire(s.state, s.policy, at(5000), time.Hour+5000*time.Second)
	var got []string
	for _, tr := range transitions {
		got = append(got, fmt.Sprintf("%s %s %s", tr.Time.Format(time.TimeOnly), tr.PCI, tr.Status))
	}
	want := []string{"12:10:01 " + gpuB + " cleared", "12:10:02 " + gpuA + " cleared"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !deadline.IsZero() || !next.Time.Equal(at(5000)) {
		t.Errorf("deadline %v, time %v", deadline, next.Time)
	}
}

func TestCountersStartAgainAtABootAndSurviveARestart(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 13, "Graphics Exception")
	s.start(10, "boot-1")
	if got := s.count(gpuA, 13); got != 1 {
		t.Errorf("after a restart: %d, want 1", got)
	}
	s.start(20, "boot-2")
	s.driver(21, "b")
	if got := s.count(gpuA, 13); got != 0 {
		t.Errorf("after a boot: %d, want 0", got)
	}
}

func TestNothingIsHealthyBeforeItAnswered(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.start(10, "boot-1")
	s.status(gpuA, Unknown)
	s.well(11, gpuA)
	s.status(gpuA, Healthy)
	s.gpu(60, gpuA, KindStale, nil)
	s.status(gpuA, Unknown)
}

func TestAnotherGPUAtTheAddressStartsClean(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(2, gpuA, KindRemapFailed, map[string]string{"failed": "true"})
	s.status(gpuA, Unhealthy)
	s.fold(Event{Source: SourceState, Kind: KindGPUFound, Time: at(9), GPU: Device{PCI: gpuA, UUID: "GPU-new"}})
	s.well(9, gpuA)
	s.says(gpuA+" RowRemapFailed raised: no spare row is left", gpuA+" RowRemapFailed cleared: another GPU is at this address")
	s.status(gpuA, Healthy)
}

func TestFactThatAPersonWaivedStaysWaivedUntilItEnds(t *testing.T) {
	failed := func(s *script, seconds float64, is string) {
		s.gpu(seconds, gpuA, KindRemapFailed, map[string]string{"failed": is})
	}
	s := newScript(t)
	s.driver(1, "a")
	failed(s, 2, "true")
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(3), GPU: Device{PCI: gpuA}})
	s.start(4, "boot-1")
	failed(s, 5, "true")
	s.says(gpuA+" RowRemapFailed raised: no spare row is left", gpuA+" RowRemapFailed cleared: by hand")
	failed(s, 6, "false")
	failed(s, 7, "true")
	s.says(gpuA + " RowRemapFailed raised: no spare row is left")
}

func TestWallClockThatIsSetHidesNoFaultAndHurriesNone(t *testing.T) {
	const hour = 3600
	event := func(wall, mono float64, kind Kind) Event {
		return Event{
			Source: SourceState, Kind: kind, Time: at(wall), Mono: time.Hour + time.Duration(mono*float64(time.Second)),
			GPU: Device{PCI: gpuA},
		}
	}
	t.Run("back", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 119, "x")
		s.driver(3, "b")
		s.rest(34)
		s.told = nil
		e := event(40-hour, 40, KindXid)
		e.Source, e.Xid = SourceKernelLog, &Report{Code: 119}
		s.fold(e)
		s.says(gpuA + " ResetRequired raised: Xid 119")
	})
	t.Run("back, while a fault is held", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.fold(event(10, 10, KindUnresponsive))
		s.fold(event(80-hour, 80, KindStale))
		s.says(gpuA + " Unresponsive raised: driver calls do not return")
	})
	t.Run("forward, while a fault is held", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.fold(event(10, 10, KindUnresponsive))
		s.fold(event(20+hour, 20, KindStale))
		s.says()
	})
	t.Run("back, by a reboot", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 119, "x")
		s.driver(3, "b")
		s.rest(34)
		s.start(-hour, "boot-2")
		s.driver(1-hour, "c")
		s.told = nil
		s.xid(2-hour, gpuA, 119, "x")
		s.says(gpuA + " ResetRequired raised: Xid 119")
	})
}

func TestSameFaultAfterARebootIsANewOne(t *testing.T) {
	s := newScript(t)
	s.booted = at(-240 * 3600) // up for ten days
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	s.start(100, "boot-2")
	s.driver(110, "c")
	s.rest(141)
	s.told = nil
	s.xid(150, gpuA, 79, "GPU has fallen off the bus.")
	s.says(gpuA + " GPULost raised: Xid 79")
}

func TestFaultAfterAReloadIsNotEndedByIt(t *testing.T) {
	reload := func(s *script, seconds float64) { s.line(seconds, banner) }
	t.Run("seen before the inventory shows the reload", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		reload(s, 10)
		s.xid(15, gpuA, 95, "Uncontained")
		s.driver(30, "b")
		s.says(gpuA + " UncorrectableMemory raised: Xid 95")
	})
	t.Run("and nobody told when it was", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(15, gpuA, 95, "Uncontained")
		s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(30), Fields: map[string]string{"load": "b", "ago": "20s"}})
		s.well(30, gpuA)
		s.says(gpuA + " UncorrectableMemory raised: Xid 95")
	})
	t.Run("while nobody looked", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.start(40, "boot-1")
		s.xid(20, gpuA, 95, "Uncontained") // from the backlog
		s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(41), Fields: map[string]string{"load": "b"}})
		s.well(41, gpuA)
		s.says(gpuA + " UncorrectableMemory raised: Xid 95")
	})
	t.Run("but one before it is, also while nobody looked", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.start(40, "boot-1")
		s.xid(20, gpuA, 95, "Uncontained")
		reload(s, 25)
		s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(41), Fields: map[string]string{"load": "b"}})
		s.well(41, gpuA)
		s.rest(72)
		s.says(gpuA+" UncorrectableMemory raised: Xid 95", gpuA+" UncorrectableMemory cleared: driver was loaded again")
	})
	t.Run("not before the GPU has answered", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 95, "Uncontained")
		s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(30), Fields: map[string]string{"load": "b", "ago": "1s"}})
		s.says(gpuA + " UncorrectableMemory raised: Xid 95")
		s.status(gpuB, Unknown)
	})
	t.Run("the inventory is quicker than the kernel log", func(t *testing.T) {
		s := newScript(t)
		s.driver(1, "a")
		s.xid(2, gpuA, 95, "Uncontained")
		s.driver(30, "b")
		s.line(29.5, banner)
		s.rest(61)
		s.status(gpuA, Healthy)
	})
}

const banner = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.195.03  Release Build"

func TestLostGPUOfTheLastBootSwallowsNothing(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	s.start(100, "boot-2")
	s.told = nil
	s.xid(105, gpuA, 95, "Uncontained")
	s.driver(110, "c")
	s.rest(141)
	s.says(gpuA+" UncorrectableMemory raised: Xid 95", gpuA+" GPULost cleared: node was rebooted")
	s.status(gpuA, Unhealthy)
}

func TestNVLink5VerdictIsTheKernelLines(t *testing.T) {
	nonfatal := func(s *script) {
		s.xid(2, gpuA, 145, "RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x00000000 0x00000000 0x00000000 0x00000000)")
	}
	fatal := func(s *script) {
		s.xid(2, gpuA, 150, "MSE_WATCHDOG Fatal XC0 i0 Link 00 (0x00000000 0x00000000 0x00000000 0x00000000)")
	}
	for _, tt := range []struct {
		name string
		play func(*script)
		want Status
	}{
		{"nonfatal, kernel log first", func(s *script) { nonfatal(s); s.nvml(2.1, gpuA, 145) }, Degraded},
		{"nonfatal, NVML first", func(s *script) { s.nvml(1.9, gpuA, 145); nonfatal(s) }, Degraded},
		{"fatal, kernel log first", func(s *script) { fatal(s); s.nvml(2.1, gpuA, 150) }, Unhealthy},
		{"fatal, NVML first", func(s *script) { s.nvml(1.9, gpuA, 150); fatal(s) }, Unhealthy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			tt.play(s)
			s.status(gpuA, tt.want)
			if n := s.count(gpuA, 145) + s.count(gpuA, 150); n != 1 {
				t.Errorf("counted %d, want 1", n)
			}
		})
	}
}

func TestWordOfXid154EndsWithTheLoadingThatSaidIt(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)")
	// A driver before 570 has no field 230 to take it back with.
	s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(10), Fields: map[string]string{"load": "b", "ago": "1s"}})
	s.gpu(11, gpuA, KindFresh, nil)
	s.says(gpuA+" ResetRequired raised: recovery action gpu-reset", gpuA+" ResetRequired cleared: the driver no longer says so")
}

func TestWordOfXid154CanBeClearedByHand(t *testing.T) {
	s := newScript(t)
	s.xid(2, gpuA, 154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)")
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(3), GPU: Device{PCI: gpuA}})
	s.says(gpuA+" ResetRequired raised: recovery action gpu-reset", gpuA+" ResetRequired cleared: by hand")
}

func TestClockThatWasAheadEndsNoQuietTime(t *testing.T) {
	s := newScript(t)
	s.booted = at(86400 - 3600) // the wall clock is a day ahead
	s.driver(86400, "a")
	s.booted = at(-3600) // and set
	s.xid(3, gpuA, 94, "Contained: SM (0x1). RST: No, D-RST: No")
	s.gpu(60, gpuB, KindFresh, nil)
	s.says(gpuA + " ContainedMemoryError raised: Xid 94")
	s.gpu(3604, gpuB, KindFresh, nil)
	s.says(gpuA + " ContainedMemoryError cleared: quiet for 1h0m0s")
}

func TestHoldThatRanOutWhileNobodyLookedIsForgotten(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindUnresponsive, nil)
	s.start(300, "boot-1")
	s.driver(301, "a")
	s.says()
}

func TestUnresponsiveEndsWhenTheGPUHasAnswered(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindUnresponsive, nil)
	s.gpu(80, gpuB, KindFresh, nil)
	s.start(100, "boot-2")
	s.says(gpuA + " Unresponsive raised: driver calls do not return")
	s.driver(110, "c")
	s.says(gpuA + " Unresponsive cleared: no longer so")
}

func TestWaivedFactSurvivesABoot(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(2, gpuA, KindRemapFailed, map[string]string{"failed": "true"})
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(3), GPU: Device{PCI: gpuA}})
	s.start(100, "boot-2")
	s.driver(101, "c")
	s.told = nil
	s.gpu(102, gpuA, KindRemapFailed, map[string]string{"failed": "true"})
	s.says()
}

func TestRemapBeforeTheMemoryFaultMeansDrainFirstToo(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 63, "Row Remapper: New row marked for remapping")
	s.xid(2.1, gpuA, 48, "An uncorrectable double bit error (DBE) has been detected")
	g, _ := view(s.state).GPU(gpuA)
	if len(g.Conditions) != 1 || g.Conditions[0].Action != ActDrainAndReset {
		t.Errorf("conditions: %+v", g.Conditions)
	}
}

func TestUUIDOfAnEventDoesNotNameTheGPU(t *testing.T) {
	s := newScript(t)
	s.fold(Event{Source: SourceEvents, Kind: KindXid, Time: at(1), GPU: Device{PCI: gpuA, UUID: "MIG-1"}, Xid: &Report{Code: 79}})
	s.driver(2, "a")
	s.says(gpuA + " GPULost raised: Xid 79")
}

func TestFatalSXidIsAFaultOfTheNode(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.line(2, "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 10003, Fatal, unhandled interrupt in nvswitch_host(3)")
	s.says(" FabricFault raised: SXid 10003")
	s.status(gpuA, Healthy)
	if len(view(s.state).GPUs) != 2 {
		t.Error("a switch is not a GPU")
	}
	s.driver(10, "b")
	s.says(" FabricFault cleared: driver was loaded again")
}

func TestUnknownKindIsCountedAndKept(t *testing.T) {
	s := newScript(t)
	s.fold(Event{Source: "future", Kind: "Telepathy", Time: at(2)})
	if s.state.Counters.Events["future/Telepathy"] != 1 {
		t.Errorf("counters: %v", s.state.Counters.Events)
	}
}

func TestMadeUpAddressesAreBounded(t *testing.T) {
	s := newScript(t)
	for i := range 300 {
		s.fold(Event{Source: SourceKernelLog, Kind: KindXid, Time: at(float64(i)), GPU: Device{PCI: fmt.Sprintf("%04x:00:00.0", i)}, Xid: &Report{Code: 79}})
	}
	if n := len(s.state.GPUs); n != maxGPUs {
		t.Errorf("%d GPUs, want %d", n, maxGPUs)
	}
}

func TestWorstFaultComesFirst(t *testing.T) {
	all := []Condition{
		{Reason: RowRemapPending},
		{Reason: ThermalFault, Effect: NoSchedule, Taint: TaintThermal},
		{Reason: GPULost, Effect: NoSchedule, Taint: TaintLost},
		{Reason: RebootRequired, Effect: NoSchedule, Taint: TaintRebootRequired},
		{Reason: LinkFault, Effect: NoExecute, Taint: TaintLink},
	}
	slices.SortFunc(all, Worse)
	var got []Reason
	for _, c := range all {
		got = append(got, c.Reason)
	}
	if diff := cmp.Diff([]Reason{LinkFault, RebootRequired, GPULost, ThermalFault, RowRemapPending}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
