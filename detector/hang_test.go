package detector

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
)

const atOnce = gpuA + " Unresponsive raised: driver calls do not return, and the kernel log tells of "

func TestKernelLineMakesAHungGPUVisibleAtOnce(t *testing.T) {
	lines := map[string]struct {
		say  func(s *script, seconds float64)
		sign string
	}{
		"hardware Xid": {func(s *script, seconds float64) { s.xid(seconds, gpuA, 94, "Contained") }, "Xid 94"},
		"driver Xid":   {func(s *script, seconds float64) { s.xid(seconds, gpuA, 119, "Timeout waiting for RPC from GSP") }, "Xid 119"},
		"hang that names the GPU": {func(s *script, seconds float64) {
			s.line(seconds, "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:"+gpuA+" (printing 1 of every 30).")
		}, "DriverHang"},
		"hang that names none": {func(s *script, seconds float64) {
			s.line(seconds, "NVRM: _kgspIsHeartbeatTimedOut: GSP RM heartbeat timed out")
		}, "DriverHang"},
	}
	for name, line := range lines {
		t.Run(name, func(t *testing.T) {
			for order, when := range map[string][2]float64{"line first": {10, 65}, "call first": {65, 10}, "call first, at the end of the hold": {69, 10}} {
				s := newScript(t)
				s.driver(1, "a")
				first, then := func() { line.say(s, when[0]) }, func() { s.gpu(when[1], gpuA, KindUnresponsive, nil) }
				if when[1] < when[0] {
					first, then = then, first
				}
				first()
				s.status(gpuB, Healthy)
				s.told = nil
				then()
				if want := atOnce + line.sign; len(s.told) == 0 || s.told[len(s.told)-1] != want {
					t.Errorf("%s: %q, want %q", order, s.told, want)
				}
				s.status(gpuA, Unhealthy)
				s.status(gpuB, Healthy)
			}
		})
	}
}

func TestKernelLineOfSomethingElseHurriesNothing(t *testing.T) {
	for name, say := range map[string]func(s *script){
		"application fault": func(s *script) { s.xid(20, gpuA, 31, "MMU Fault") },
		"another GPU":       func(s *script) { s.xid(20, gpuB, 119, "Timeout waiting for RPC from GSP") },
		"long before":       func(s *script) { s.fold(kernelXid(at(-52), 94)) },
		"NVML's word":       func(s *script) { s.nvml(20, gpuA, 94) },
		"all is well now": func(s *script) {
			s.xid(20, gpuA, 154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.gpu(10, gpuA, KindUnresponsive, nil)
			say(s)
			for _, c := range s.state.GPUs[0].Conditions {
				if c.Reason == Unresponsive && c.Visible() {
					t.Errorf("visible before its time: %s", c.Cause)
				}
			}
		})
	}
}

func kernelXid(when time.Time, code int) Event {
	return Event{Source: SourceKernelLog, Kind: KindXid, Time: when, GPU: Device{PCI: gpuA}, Xid: &Report{Code: code}}
}

func TestSignBeforeANewLoadingExplainsNoHangAfterIt(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(10, gpuA, 94, "Contained")
	s.line(20, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.195.03")
	s.driver(21, "b")
	s.told = nil
	s.gpu(30, gpuA, KindUnresponsive, nil)
	s.says()
}

func TestHungGPUIsWellWhenTheCallReturns(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(10, gpuA, KindUnresponsive, nil)
	s.xid(11, gpuA, 94, "Contained")
	s.gpu(30, gpuA, KindResponsive, nil)
	s.status(gpuA, Unhealthy) // it has not answered yet
	s.told = nil
	s.well(30, gpuA)
	s.says(gpuA + " Unresponsive cleared: no longer so")
}

func TestSignSurvivesARestartOfTheDaemon(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(10, gpuA, 94, "Contained")
	saved, err := json.Marshal(Saved{State: s.state})
	if err != nil {
		t.Fatal(err)
	}
	restored, err := DecodeSaved(saved)
	if err != nil {
		t.Fatal(err)
	}
	s.state = restored.State
	s.start(20, "boot-1")
	s.driver(21, "a")
	s.told = nil
	s.gpu(30, gpuA, KindUnresponsive, nil)
	s.says(atOnce + "Xid 94")
	s.start(40, "boot-1")
	s.status(gpuA, Unhealthy)
	s.start(100, "boot-2")
	s.driver(101, "c")
	s.told = nil
	s.gpu(102, gpuA, KindUnresponsive, nil)
	s.says() // the sign was of the boot before
}

func TestDriverThatAnswersNothingIsAFaultOfTheNode(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.fold(Event{Source: SourceState, Kind: KindDriverStuck, Time: at(10), Fields: map[string]string{"cause": "4 workers are stuck"}})
	s.status(gpuA, Unknown)
	s.status(gpuB, Unknown)
	node := view(s.state).Node
	want := []Condition{{
		Reason: DriverStuck, Class: Driver, Scope: ScopeNode, Effect: NoSchedule, Action: ActRebootNode, Taint: TaintUnresponsive,
		Cause: "the driver answers no question", Message: "4 workers are stuck", Since: at(10), Last: at(10), Mono: time.Hour + 10*time.Second,
		Count: 1, Incident: node[0].Incident, Fact: SourceState, Boot: "boot-1",
		Members: []Member{{Kind: KindDriverStuck, Count: 1, First: at(10), Last: at(10)}},
	}}
	if diff := cmp.Diff(want, node); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(11)})
	if len(view(s.state).Node) != 1 {
		t.Error("what is so was cleared by hand")
	}
	s.fold(Event{Source: SourceState, Kind: KindDriverAnswers, Time: at(20)})
	s.says(" DriverStuck raised: the driver answers no question", " DriverStuck cleared: no longer so")
	s.status(gpuA, Unknown) // the driver answers, the GPU has not yet
	s.well(21, gpuA)
	s.status(gpuA, Healthy)
}

func TestStuckDriverIsOverWhenItIsSeenOtherwise(t *testing.T) {
	stuck := Event{Source: SourceState, Kind: KindDriverStuck, Time: at(10)}
	for name, end := range map[string]func(s *script){
		"it is loaded":   func(s *script) { s.start(20, "boot-1"); s.driver(21, "a") },
		"it answers":     func(s *script) { s.fold(Event{Source: SourceState, Kind: KindDriverAnswers, Time: at(20)}) },
		"after a reboot": func(s *script) { s.start(20, "boot-2"); s.driver(21, "c") },
		"missing after it": func(s *script) {
			s.start(20, "boot-2")
			s.fold(Event{Source: SourceState, Kind: KindDriverMissing, Time: at(20)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			s.fold(stuck)
			s.told = nil
			end(s)
			s.says(" DriverStuck cleared: no longer so")
			if s.state.Driver.Stuck {
				t.Error("the driver counts as stuck")
			}
		})
	}
}

// After a restart of the daemon the first inventory may run out of time before
// the driver is known to be stuck, and a library may be taken away meanwhile.
func TestStuckDriverThatCannotBeAskedIsStuckStill(t *testing.T) {
	for _, cause := range []error{nvml.ErrTimeout, nvml.ErrNoDriver} {
		s := newScript(t)
		s.driver(1, "a")
		s.fold(Event{Source: SourceState, Kind: KindDriverStuck, Time: at(10)})
		s.start(20, "boot-1")
		s.told = nil
		f := NewFacts(nvml.DefaultFreshness, s.fold)
		f.Observe(nvml.Observation{Time: at(30), InventoryErr: cause})
		s.says()
		f.Observe(nvml.Observation{Time: at(31), InventoryErr: nvml.ErrStuck})
		s.says()
		if !s.state.Driver.Stuck || !view(s.state).Ready() {
			t.Errorf("%v: driver %+v", cause, s.state.Driver)
		}
		f.Observe(nvml.Observation{Time: at(40), InventoryErr: nvml.ErrNoDriver})
		s.says(" DriverStuck cleared: no longer so") // it was stuck before our eyes, and has answered
	}
}

func TestDriverTellsWhatHasBecomeOfIt(t *testing.T) {
	s := newScript(t)
	loaded := func(seconds float64, version, load string) {
		s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(seconds), Fields: map[string]string{"version": version, "load": load}})
	}
	missing := func(seconds float64, cause string) {
		s.fold(Event{Source: SourceState, Kind: KindDriverMissing, Time: at(seconds), Fields: map[string]string{"cause": cause}})
	}
	missing(1, "no library")
	missing(2, "no library")
	missing(3, "not loaded")
	loaded(61, "570.1", "a")
	s.start(70, "boot-1")
	loaded(71, "570.1", "a")
	loaded(80, "570.1", "b")
	missing(90, "not loaded")
	loaded(100, "580.2", "c")
	missing(110, "not loaded")
	loaded(112, "580.2", "c")
	s.start(200, "boot-2")
	loaded(201, "590.3", "d")
	want := []string{
		"DriverMissing: no library", "DriverMissing: not loaded", "DriverArrived: 570.1, missing for 1m0s",
		"DriverReloaded: 570.1 was loaded again",
		"DriverMissing: not loaded", "DriverReplaced: 570.1 replaced by 580.2",
		"DriverMissing: not loaded", "DriverArrived: 580.2, missing for 2s",
		"DriverLoaded: 590.3",
	}
	if diff := cmp.Diff(want, s.noted); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGPUThatCannotBeDescribedIsNotAnotherOne(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	blank := Event{Source: SourceState, Kind: KindGPUFound, Time: at(3), GPU: Device{PCI: gpuA}, Fields: map[string]string{"index": "0", "minor": "-1", "memoryBytes": "0"}}
	s.fold(blank)
	g, _ := view(s.state).GPU(gpuA)
	if g.UUID != "GPU-"+gpuA || g.Minor == nil || len(g.Conditions) != 1 {
		t.Errorf("an empty description took away what was known: %+v", g)
	}
	s.start(100, "boot-2")
	other := "0000:3b:00.0"
	blank.GPU.PCI, blank.Time, blank.ID, blank.Boot, blank.Mono = other, at(101), "", "", 0
	s.fold(blank)
	s.gpu(102, other, KindFresh, nil)
	s.fold(Event{Source: SourceState, Kind: KindGPUFound, Time: at(103), GPU: Device{PCI: other, UUID: "GPU-x"}, Fields: map[string]string{"index": "0", "name": "H100"}})
	if g, _ := view(s.state).GPU(other); g.UUID != "GPU-x" || g.Name != "H100" || g.Status != Healthy {
		t.Errorf("described later: %+v", g)
	}
}

// spoiled is a driver whose answers can be replaced by an error, and whose
// descriptions can be blank.
type spoiled struct {
	nvml.Driver

	mu    sync.Mutex // guards what follows
	err   error
	blank bool
}

func (d *spoiled) set(err error, blank bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.blank = err, blank
}

func (d *spoiled) is() (error, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err, d.blank
}

func (d *spoiled) Inventory(ctx context.Context) (nvml.Inventory, error) {
	err, blank := d.is()
	if err != nil {
		return nvml.Inventory{}, err
	}
	i, err := d.Driver.Inventory(ctx)
	if blank {
		for n, g := range i.GPUs {
			i.GPUs[n] = nvml.GPU{PCI: g.PCI, Minor: -1}
		}
	}
	return i, err
}

func (d *spoiled) Health(ctx context.Context, pci string) (nvml.Health, error) {
	if err, _ := d.is(); err != nil {
		return nvml.Health{}, err
	}
	return d.Driver.Health(ctx, pci)
}

func (d *spoiled) Readings(ctx context.Context, pci string) (nvml.Readings, error) {
	if err, _ := d.is(); err != nil {
		return nvml.Readings{}, err
	}
	return d.Driver.Readings(ctx, pci)
}

func TestStuckDriverIsToldOfOnceAndMakesEveryGPUUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.spoiled.set(nvml.ErrStuck, false)
		after(time.Hour)
		n.is(t, "Unknown Unknown")
		n.spoiled.set(nil, false)
		after(time.Minute)
		n.is(t, "Healthy Healthy")
		// Whether a GPU or the inventory meets it first is open.
		n.facts = slices.DeleteFunc(n.facts, func(f string) bool { return strings.HasSuffix(f, "ReadingsStale") })
		want := []string{"node DriverStuck", "node DriverAnswers", "0 ReadingsFresh", "1 ReadingsFresh"}
		if diff := cmp.Diff(want, n.sorted()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestDriverThatIsStuckFromTheStartIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		f := NewFacts(nvml.DefaultFreshness, func(e Event) { told = append(told, string(e.Kind)) })
		f.Observe(nvml.Observation{InventoryErr: nvml.ErrStuck})
		f.Observe(nvml.Observation{InventoryErr: nvml.ErrTimeout})
		f.Observe(nvml.Observation{InventoryErr: nvml.ErrPaused})
		f.Observe(nvml.Observation{Inventory: &nvml.Inventory{Load: "a"}})
		if diff := cmp.Diff([]string{"DriverStuck", "DriverAnswers", "DriverLoaded"}, told); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestPauseIsNoFactAboutTheDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		n.spoiled.set(nvml.ErrPaused, false)
		after(time.Hour)
		n.is(t, "Unknown")
		n.spoiled.set(nil, false)
		after(time.Minute)
		n.is(t, "Healthy")
		if diff := cmp.Diff([]string{"0 ReadingsStale", "0 ReadingsFresh"}, n.facts); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestBlankDescriptionTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		n.spoiled.set(nil, true)
		after(time.Hour)
		n.spoiled.set(nil, false)
		after(time.Hour)
		if len(n.facts) > 0 || n.Snapshot().GPUs[0].UUID == "" {
			t.Errorf("told %v of %+v", n.facts, n.Snapshot().GPUs[0])
		}
	})
}

func TestChangeOfMIGDevicesHasTheInventoryTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var asked []string
		_ = DriverEvents(ctx, oneEvent{cancel: cancel, event: nvml.Event{Type: nvml.EventMIGConfiguration, PCI: gpuA}},
			func(context.Context, Event) (*Snapshot, error) { return nil, nil }, func(pci string) { asked = append(asked, pci) })
		if diff := cmp.Diff([]string{gpuA, ""}, asked); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// oneEvent is a driver that tells of one event, then ends the test.
type oneEvent struct {
	nvml.Driver
	cancel context.CancelFunc
	event  nvml.Event
}

func (d oneEvent) Events(_ context.Context, emit func(nvml.Event)) error {
	emit(d.event)
	d.cancel()
	return nil
}
