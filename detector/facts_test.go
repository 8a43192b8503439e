package detector

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// node is a scripted node with the sampler, the facts and the detector on it.
type node struct {
	*Detector
	driver  *fake.Driver
	spoiled *spoiled // the way to it
	valve   *nvml.Valve
	facts   []string // as emitted, "<index> <kind>"

	releases atomic.Int32
	holds    atomic.Pointer[error] // what is not released
}

// release is what the valve has the driver do.
func (n *node) release(context.Context) error {
	n.releases.Add(1)
	if held := n.holds.Load(); held != nil {
		return *held
	}
	return nil
}

// sorted is the facts in an order of their own: GPUs are asked at the same time.
func (n *node) sorted() []string {
	place := func(fact string) int {
		return slices.Index([]string{"ReadingsStale", "DriverStuck", "DriverAnswers", "ReadingsFresh"}, strings.Fields(fact)[1])
	}
	return slices.SortedStableFunc(slices.Values(n.facts), func(a, b string) int { return cmp.Or(place(a)-place(b), strings.Compare(a, b)) })
}

func newNode(t *testing.T, gpus int) *node {
	t.Helper()
	scenario, err := fake.Node("h100", gpus)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{driver: fake.New(scenario)}
	n.spoiled = &spoiled{Driver: n.driver}
	n.valve = nvml.NewValve(n.spoiled, n.release)
	var ctx context.Context
	n.Detector, ctx = running(t, Config{})
	sampler := nvml.NewSampler(n.valve, nvml.SamplerOptions{})
	facts := NewFacts(nvml.DefaultFreshness, func(e Event) {
		index := "node"
		for i, g := range scenario.GPUs {
			if g.PCI == e.GPU.PCI {
				index = fmt.Sprint(i)
			}
		}
		n.facts = append(n.facts, index+" "+string(e.Kind))
		n.Emit(e)
	})
	stopped := make(chan struct{}, 4)
	run := func(f func()) { go func() { f(); stopped <- struct{}{} }() }
	sourcing, stop := context.WithCancel(ctx)
	run(func() { _ = sampler.Run(sourcing, facts.Observe) })
	run(func() { _ = DriverEvents(sourcing, n.valve, n.Submit, sampler.Refresh) })
	run(func() { _ = DriverPauses(sourcing, n.Watch(sourcing), n.valve, sampler.Refresh, zap.NewNop()) })
	run(func() {
		_ = NewKernelLog().Lines(sourcing, "boot-1", n.driver.KernelLines, n.Emit)
	})
	t.Cleanup(func() {
		stop()
		for range cap(stopped) {
			<-stopped
		}
	})
	after(time.Second)
	n.facts = nil
	return n
}

// after lets time pass, and what it brings about happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (n *node) do(t *testing.T, gpu int, a fake.Action) {
	t.Helper()
	if err := n.driver.Apply(fake.Step{GPU: gpu, Do: a}); err != nil {
		t.Fatal(err)
	}
}

func (n *node) statuses() string {
	var all []string
	for _, g := range n.Snapshot().GPUs {
		all = append(all, string(g.Status))
	}
	return strings.Join(all, " ")
}

func (n *node) is(t *testing.T, want string) {
	t.Helper()
	if got := n.statuses(); got != want {
		t.Errorf("GPUs are %s, want %s", got, want)
	}
}

func TestFactsAreToldWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.is(t, "Healthy Healthy")
		after(time.Hour)
		if len(n.facts) > 0 {
			t.Errorf("told though nothing changed: %v", n.facts)
		}
		n.do(t, 1, fake.RemapPending(true))
		after(11 * time.Second)
		n.is(t, "Healthy Degraded")
		n.do(t, 1, fake.RemapPending(false))
		after(11 * time.Second)
		n.is(t, "Healthy Healthy")
		if diff := gocmp.Diff([]string{"1 RemapPending", "1 GPUReset", "1 RemapPending"}, n.facts); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestGPUFallsOffTheBusAndComesBackByReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.do(t, 1, fake.Xid{Code: 79})
		n.do(t, 1, fake.Lost(true))
		after(3 * time.Second)
		n.is(t, "Healthy Unhealthy")
		if g := n.Snapshot().GPUs[1]; len(g.Xids) == 0 || g.Xids[0].Code != 79 || g.Xids[0].Count != 1 {
			t.Errorf("Xids: %+v: the kernel log and NVML told of one", g.Xids)
		}
		n.do(t, 1, fake.Lost(false))
		after(30 * time.Second)
		n.is(t, "Healthy Unhealthy")
		n.do(t, 0, fake.Reload{})
		after(5 * time.Second)
		n.is(t, "Healthy Unhealthy")
		after(settleTime)
		n.is(t, "Healthy Healthy")
	})
}

func TestLostWithoutAnXidEndsWhenItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.do(t, 0, fake.Lost(true))
		after(3 * time.Second)
		n.is(t, "Unhealthy Healthy")
		n.do(t, 0, fake.Lost(false))
		after(3 * time.Second)
		n.is(t, "Unhealthy Healthy")
		after(settleTime)
		n.is(t, "Healthy Healthy")
	})
}

func TestHungGPUIsUnknownThenUnresponsiveThenWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.do(t, 0, fake.Hang(5*time.Minute))
		after(15 * time.Second)
		n.is(t, "Unknown Healthy")
		after(time.Minute)
		n.is(t, "Unhealthy Healthy")
		after(5 * time.Minute)
		n.is(t, "Healthy Healthy")
	})
}

func TestMissingGPUIsLostUntilItIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.do(t, 1, fake.Missing(true))
		after(time.Minute)
		n.is(t, "Healthy Unhealthy")
		n.do(t, 1, fake.Missing(false))
		after(time.Minute)
		n.is(t, "Healthy Healthy")
	})
}

// A GPU that was forgotten by hand stays forgotten while nobody sees it, whatever
// becomes of the driver; when it is back, all that it says is told again.
func TestForgottenGPUIsKnownAgainWhenItIsListed(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   []fake.Action
	}{
		{"nothing", nil},
		{"another loading", []fake.Action{fake.Reload{}}},
		{"no driver for a while", []fake.Action{fake.Present(false), fake.Present(true)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, 2)
				n.do(t, 1, fake.RemapFailed(true))
				after(time.Minute)
				n.do(t, 1, fake.Missing(true))
				after(time.Minute)
				n.is(t, "Healthy Unhealthy")
				n.Emit(Event{Source: SourceHand, Kind: KindClear, GPU: Device{PCI: n.Snapshot().GPUs[1].PCI}})
				for _, a := range tt.do {
					n.do(t, 0, a)
					after(time.Minute)
				}
				after(time.Hour)
				n.is(t, "Healthy")
				n.do(t, 1, fake.Missing(false))
				after(time.Minute)
				n.is(t, "Healthy Unhealthy")
			})
		})
	}
}

func TestDriverThatGoesLeavesUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 2)
		n.do(t, 0, fake.Present(false))
		after(10 * time.Second)
		n.is(t, "Unknown Unknown")
		if n.Snapshot().Driver.Missing == "" || !n.Snapshot().Ready() {
			t.Errorf("driver: %+v", n.Snapshot().Driver)
		}
		n.do(t, 0, fake.Present(true))
		after(10 * time.Second)
		n.is(t, "Healthy Healthy")
	})
}

func TestSilentGPUIsToldOfOnce(t *testing.T) {
	for name, fault := range map[string]fake.Action{"lost": fake.Lost(true), "hung": fake.Hang(24 * time.Hour), "missing": fake.Missing(true)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, 2)
				n.do(t, 1, fault)
				after(12 * time.Hour)
				if len(n.facts) > 2 {
					t.Errorf("told %d times", len(n.facts))
				}
			})
		})
	}
}

func TestGPUThatVanishedWhileNobodyLookedIsLost(t *testing.T) {
	d := New(Config{Policy: DefaultPolicy(), Boot: "boot-1"})
	d.Emit(Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: gpuA}})
	d.Emit(Event{Source: SourceDaemon, Kind: KindBoot})
	facts := NewFacts(nvml.DefaultFreshness, d.Emit)
	facts.Observe(nvml.Observation{Time: time.Now(), Inventory: &nvml.Inventory{Load: "a"}})
	facts.Observe(nvml.Observation{Time: time.Now(), PCI: gpuA, Missing: true, Err: nvml.ErrNotFound})
	if g, _ := d.Snapshot().GPU(gpuA); g.Status != Unhealthy || g.Conditions[0].Reason != GPULost {
		t.Errorf("GPU: %+v", g)
	}
}

func TestAnotherGPUAtTheAddressIsAskedAnew(t *testing.T) {
	d := New(Config{Policy: DefaultPolicy(), Boot: "boot-1"})
	facts := NewFacts(nvml.DefaultFreshness, d.Emit)
	for _, uuid := range []string{"GPU-1", "GPU-2"} {
		facts.Observe(nvml.Observation{Time: time.Now(), Inventory: &nvml.Inventory{Load: "a", GPUs: []nvml.GPU{{PCI: gpuA, UUID: uuid}}}})
		facts.Observe(nvml.Observation{Time: time.Now(), PCI: gpuA, Health: &nvml.Health{}})
	}
	if g, _ := d.Snapshot().GPU(gpuA); g.Status != Healthy || g.UUID != "GPU-2" {
		t.Errorf("GPU: %+v", g)
	}
}

func TestSlowInventoryCondemnsNobody(t *testing.T) {
	d := New(Config{Policy: DefaultPolicy(), Boot: "boot-1"})
	facts := NewFacts(nvml.DefaultFreshness, d.Emit)
	facts.Observe(nvml.Observation{Time: time.Now(), Inventory: &nvml.Inventory{Load: "a", GPUs: []nvml.GPU{{PCI: gpuA, UUID: "GPU-1"}}}})
	facts.Observe(nvml.Observation{Time: time.Now(), PCI: gpuA, Health: &nvml.Health{}})
	facts.Observe(nvml.Observation{Time: time.Now(), InventoryErr: nvml.ErrTimeout})
	if s := d.Snapshot(); s.GPUs[0].Status != Healthy || s.Driver.Missing != "" {
		t.Errorf("snapshot: %+v", s)
	}
	facts.Observe(nvml.Observation{Time: time.Now(), InventoryErr: nvml.ErrNoDriver})
	if s := d.Snapshot(); s.GPUs[0].Status != Unknown || s.Driver.Missing == "" {
		t.Errorf("snapshot: %+v", s)
	}
}

func TestHangingDiskStopsNoDriverEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{hang: make(chan struct{})}
		d, ctx := running(t, Config{Store: store, Trail: store})
		t.Cleanup(func() { close(store.hang) })
		scenario, err := fake.Node("h100", 2)
		if err != nil {
			t.Fatal(err)
		}
		driver := fake.New(scenario)
		var asked []string
		stopped := make(chan struct{})
		listening, stop := context.WithCancel(ctx)
		go func() {
			defer close(stopped)
			_ = DriverEvents(listening, driver, d.Submit, func(pci string) { asked = append(asked, pci) })
		}()
		synctest.Wait()
		for i := range 2 {
			if err := driver.Apply(fake.Step{GPU: i, Do: fake.Xid{Code: 79}}); err != nil {
				t.Fatal(err)
			}
		}
		after(time.Minute)
		if got := len(d.Snapshot().GPUs); got != 2 {
			t.Errorf("%d GPUs are lost, want 2", got)
		}
		stop()
		<-stopped
		if len(asked) < 2 {
			t.Errorf("asked: %v", asked)
		}
	})
}

func TestRecoveryActionThatWasNotToldIsNotNone(t *testing.T) {
	s := newScript(t)
	is := func(want *int) {
		t.Helper()
		g, _ := view(s.state).GPU(gpuA)
		if diff := gocmp.Diff(want, g.Recovery); diff != "" {
			t.Errorf("recovery action (-want +got):\n%s", diff)
		}
	}
	s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(1), Fields: map[string]string{"load": "a"}})
	s.gpu(2, gpuA, KindGPUFound, nil)
	is(nil)
	s.gpu(3, gpuA, KindRecoveryAction, map[string]string{"action": "0"})
	is(new(0))
	s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(4), Fields: map[string]string{"load": "b"}})
	is(nil) // another driver may not know it
}
