package nvml_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// bench is a sampler at work on a scripted driver.
type bench struct {
	*nvml.Sampler
	driver *fake.Driver
	pcis   []string

	mu   sync.Mutex // guards told
	told []nvml.Observation
}

// sample starts a sampler on n scripted H100; through may put something between
// the two. It ends with the test.
func sample(t *testing.T, n int, o nvml.SamplerOptions, through func(nvml.Driver) nvml.Driver, first ...fake.Action) *bench {
	t.Helper()
	s, err := fake.Node("h100", n)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{driver: fake.New(s)}
	for _, g := range s.GPUs {
		b.pcis = append(b.pcis, g.PCI)
	}
	b.apply(t, 0, first...)
	var door nvml.Driver = b.driver
	if through != nil {
		door = through(door)
	}
	b.Sampler = nvml.NewSampler(door, o)
	go func() {
		if err := b.Run(t.Context(), b.observe); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	synctest.Wait()
	return b
}

func (b *bench) apply(t *testing.T, gpu int, actions ...fake.Action) {
	t.Helper()
	for _, action := range actions {
		if err := b.driver.Apply(fake.Step{GPU: gpu, Do: action}); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) observe(o nvml.Observation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, o)
}

func (b *bench) observed() []nvml.Observation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.told)
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// since gives what was observed from now on, each time that it is called.
func (b *bench) since() func() []string {
	from := len(b.observed())
	return func() []string {
		var all []string
		for _, o := range b.observed()[from:] {
			all = append(all, b.brief(o))
		}
		return all
	}
}

func (b *bench) brief(o nvml.Observation) string {
	gpu := slices.Index(b.pcis, o.PCI)
	switch {
	case o.InventoryErr != nil:
		return "no inventory"
	case o.Inventory != nil:
		return fmt.Sprintf("inventory of %d", len(o.Inventory.GPUs))
	case o.Missing:
		return fmt.Sprintf("%d missing", gpu)
	case errors.Is(o.Err, nvml.ErrLost):
		return fmt.Sprintf("%d lost", gpu)
	case errors.Is(o.Err, nvml.ErrTimeout):
		return fmt.Sprintf("%d silent", gpu)
	case o.Err != nil:
		return fmt.Sprintf("%d %v", gpu, o.Err)
	}
	return fmt.Sprintf("%d %s", gpu, o.Health.Recovery.Value)
}

func want(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestSamplerKnowsEveryGPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 4, nvml.SamplerOptions{}, nil)
		s := b.Latest()
		if s.Time.IsZero() || s.InventoryTime.IsZero() || s.InventoryErr != nil || len(s.Inventory.GPUs) != 4 {
			t.Errorf("sample %+v: want an inventory of 4", s)
		}
		for i, g := range s.GPUs {
			if g.Index != i || g.GPU.PCI != b.pcis[i] || g.GPU.UUID == "" || g.Missing {
				t.Errorf("GPU %d is %+v with index %d", i, g.GPU, g.Index)
			}
			if !g.Readings.Power.OK || !g.Health.Recovery.OK || g.ReadingsErr != nil || g.HealthErr != nil || !g.Fresh(time.Now()) {
				t.Errorf("GPU %d has not answered: %+v", i, g)
			}
		}
		observed := b.observed()
		if len(observed) != 5 || b.brief(observed[0]) != "inventory of 4" {
			t.Fatalf("observed %d outcomes, want the inventory first of 5", len(observed))
		}
		want(t, "indexes", map[string]int{b.pcis[0]: 0, b.pcis[1]: 1, b.pcis[2]: 2, b.pcis[3]: 3}, observed[0].Indexes)
	})
}

func TestPollsKeepTheirPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(time.Minute + time.Millisecond)
		s := b.Latest()
		for _, g := range s.GPUs {
			want(t, "calls", nvml.CallStats{Readings: nvml.CallCount{Count: 61}, Health: nvml.CallCount{Count: 7}}, g.Calls)
		}
		want(t, "calls for the inventory", nvml.CallCount{Count: 3}, s.InventoryCalls)
	})
}

func TestOneOutcomeIsToldAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := fake.Node("h100", 8)
		if err != nil {
			t.Fatal(err)
		}
		var inside, told atomic.Int32
		go func() {
			_ = nvml.NewSampler(fake.New(s), nvml.SamplerOptions{}).Run(t.Context(), func(nvml.Observation) {
				if inside.Add(1) > 1 {
					t.Error("an outcome is told while another is")
				}
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				told.Add(1)
			})
		}()
		pass(time.Minute + 500*time.Millisecond) // between two turns
		if told.Load() < 50 {
			t.Errorf("%d outcomes in a minute", told.Load())
		}
	})
}

func TestHungGPUDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 8, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		b.apply(t, 3, fake.Hang(time.Hour))
		for range 60 {
			pass(time.Second)
			for i, g := range b.Latest().GPUs {
				if age := time.Since(g.ReadingsAnswered); i != 3 && (age > time.Second || g.ReadingsErr != nil) {
					t.Fatalf("GPU %d answered %s ago (%v), beside one that hangs", i, age, g.ReadingsErr)
				}
			}
		}
		g := b.Latest().GPUs[3]
		if !errors.Is(g.ReadingsErr, nvml.ErrTimeout) || !errors.Is(g.HealthErr, nvml.ErrTimeout) || g.Fresh(time.Now()) {
			t.Errorf("the hung GPU: readings %v, health %v, fresh %t", g.ReadingsErr, g.HealthErr, g.Fresh(time.Now()))
		}
		if !g.Readings.Power.OK {
			t.Error("the last good readings are gone")
		}
		// One at the start, one as the readings stop, one for each 10 s.
		if calls := g.Calls.Health.Count; calls > 8 {
			t.Errorf("%d calls for its health in a minute, want no more than without a hang", calls)
		}
		b.apply(t, 3, fake.Hang(0))
		pass(2 * time.Second)
		if g := b.Latest().GPUs[3]; g.ReadingsErr != nil || g.HealthErr != nil || !g.Fresh(time.Now()) {
			t.Errorf("after the hang: readings %v, health %v", g.ReadingsErr, g.HealthErr)
		}
	})
}

// deaf is a driver whose calls for health of one GPU heed no context.
type deaf struct {
	nvml.Driver
	pci      string
	release  chan struct{}
	out, all atomic.Int32
}

func (d *deaf) Health(ctx context.Context, pci string) (nvml.Health, error) {
	if pci == d.pci {
		d.all.Add(1)
		d.out.Add(1)
		<-d.release
		d.out.Add(-1)
		ctx = context.WithoutCancel(ctx)
	}
	return d.Driver.Health(ctx, pci)
}

func TestCallThatHeedsNoDeadlineIsLeftBehindOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := &deaf{release: make(chan struct{})}
		b := sample(t, 2, nvml.SamplerOptions{}, func(d nvml.Driver) nvml.Driver {
			inv, err := d.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			door.Driver, door.pci = d, inv.GPUs[0].PCI
			return door
		})
		observed := b.since()
		pass(25 * time.Second)
		want(t, "outcomes", []string{"0 silent", "0 silent", "1 none", "0 silent", "1 none"}, sorted(observed(), 5))
		if out, all := door.out.Load(), door.all.Load(); out != 1 || all != 1 {
			t.Errorf("%d calls out of %d made, want 1 of 1", out, all)
		}
		g := b.Latest().GPUs[0]
		if !errors.Is(g.HealthErr, nvml.ErrTimeout) || g.ReadingsErr != nil || g.HealthFresh(time.Now()) || !g.ReadingsFresh(time.Now()) {
			t.Errorf("health %v, readings %v: want only health to be out", g.HealthErr, g.ReadingsErr)
		}
		want(t, "calls for health", nvml.CallCount{Count: 1, Errors: 1, Time: 2 * time.Second}, g.Calls.Health)

		close(door.release) // 5 s before the next turn
		synctest.Wait()
		if g := b.Latest().GPUs[0]; g.HealthErr != nil || door.all.Load() != 2 {
			t.Errorf("after it came back: %v, %d calls: want a new one at once", g.HealthErr, door.all.Load())
		}
	})
}

// sorted brings outcomes of one moment, which come in any order, into one:
// those of GPU 0 first within each turn of 10 s.
func sorted(outcomes []string, n int) []string {
	if len(outcomes) != n {
		return outcomes
	}
	out := slices.Clone(outcomes)
	for i := 1; i+1 < n; i += 2 {
		slices.Sort(out[i : i+2])
	}
	return out
}

func TestRunEndsWhileACallIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := fake.Node("h100", 1)
		if err != nil {
			t.Fatal(err)
		}
		door := &deaf{Driver: fake.New(s), pci: s.GPUs[0].PCI, release: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- nvml.NewSampler(door, nvml.SamplerOptions{}).Run(ctx, func(nvml.Observation) {}) }()
		pass(5 * time.Second)
		cancel()
		synctest.Wait()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v, want nil", err)
			}
		default:
			t.Error("run has not ended")
		}
		close(door.release)
	})
}

func TestCancelIsNoOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := fake.Node("h100", 8)
		if err != nil {
			t.Fatal(err)
		}
		d := fake.New(s)
		for i := range s.GPUs {
			if err := d.Apply(fake.Step{GPU: i, Do: fake.Hang(time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		sampler := nvml.NewSampler(d, nvml.SamplerOptions{})
		go func() {
			_ = sampler.Run(ctx, func(o nvml.Observation) {
				if o.Err != nil {
					t.Errorf("observed %v", o.Err)
				}
			})
		}()
		pass(time.Second) // all calls are out
		before := sampler.Latest()
		cancel()
		synctest.Wait()
		if sampler.Latest() != before {
			t.Error("the cancel made a sample")
		}
	})
}

func TestLossIsSeenBeforeTheNextHealthPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		observed := b.since()
		b.apply(t, 1, fake.Lost(true))
		pass(time.Second)
		want(t, "observed", []string{"1 lost"}, observed())
		if g := b.Latest().GPUs[1]; !errors.Is(g.ReadingsErr, nvml.ErrLost) || !errors.Is(g.HealthErr, nvml.ErrLost) {
			t.Errorf("readings %v, health %v, want %v", g.ReadingsErr, g.HealthErr, nvml.ErrLost)
		}
		b.apply(t, 1, fake.Lost(false))
		pass(time.Second)
		want(t, "observed", []string{"1 lost", "1 none"}, observed())
	})
}

func TestInventoryIsTriedWithGrowingPausesWhileThereIsNoDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := sample(t, 2, nvml.SamplerOptions{}, nil, fake.Present(false))
		pass(20 * time.Second)
		var tries []time.Duration
		for _, o := range b.observed() {
			if !errors.Is(o.InventoryErr, nvml.ErrNoDriver) {
				t.Errorf("observed %+v, want %v", o, nvml.ErrNoDriver)
			}
			tries = append(tries, o.Time.Sub(began).Round(time.Millisecond))
		}
		var times []time.Duration
		for _, ms := range []int{0, 100, 300, 700, 1500, 3100, 6300, 11300, 16300} {
			times = append(times, time.Duration(ms)*time.Millisecond)
		}
		want(t, "tries", times, tries)
		if s := b.Latest(); s.InventoryTime.IsZero() || !errors.Is(s.InventoryErr, nvml.ErrNoDriver) || len(s.GPUs) != 0 {
			t.Errorf("sample %+v: want the answer that there is no driver", s)
		}
		b.apply(t, 0, fake.Present(true))
		pass(5 * time.Second)
		if s := b.Latest(); s.InventoryErr != nil || len(s.GPUs) != 2 || !s.GPUs[0].Fresh(time.Now()) {
			t.Errorf("sample %+v: want two GPUs that answer", s)
		}

		observed := b.since()
		b.apply(t, 0, fake.Present(false))
		b.Refresh("")
		pass(350 * time.Millisecond)
		want(t, "the next time", []string{"no inventory", "no inventory", "no inventory"}, observed())
	})
}

func TestUnloadedDriverIsNotAskedForItsGPUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		observed := b.since()
		b.apply(t, 0, fake.Present(false))
		pass(time.Second)
		if got := observed(); len(got) == 0 || slices.ContainsFunc(got, func(o string) bool { return o != "no inventory" }) {
			t.Errorf("observed %q within a second, want only that there is no inventory", got)
		}
		before := b.Latest()
		pass(time.Minute)
		after := b.Latest()
		want(t, "calls of GPU 0", before.GPUs[0].Calls, after.GPUs[0].Calls)
		if !errors.Is(after.GPUs[0].HealthErr, nvml.ErrNoDriver) || after.GPUs[0].Missing || len(after.Inventory.GPUs) != 2 {
			t.Errorf("GPU 0 %+v: want it known, but without driver", after.GPUs[0])
		}
		b.apply(t, 0, fake.Present(true))
		b.Refresh("")
		pass(200 * time.Millisecond) // the next turn of any GPU would be later
		for i, g := range b.Latest().GPUs {
			if g.HealthErr != nil || g.ReadingsErr != nil || !g.HealthFresh(time.Now()) {
				t.Errorf("GPU %d: health %v, readings %v after the driver came back", i, g.HealthErr, g.ReadingsErr)
			}
		}
	})
}

// refusing is a driver that answers every call with an error, if it has one.
type refusing struct {
	nvml.Driver
	err   atomic.Pointer[error]
	calls atomic.Int32 // about GPUs, that were refused
}

func (r *refusing) refuse(err error) { r.err.Store(&err) }

func (r *refusing) refusal() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *refusing) Inventory(ctx context.Context) (nvml.Inventory, error) {
	if err := r.refusal(); err != nil {
		return nvml.Inventory{}, err
	}
	return r.Driver.Inventory(ctx)
}

func (r *refusing) Readings(ctx context.Context, pci string) (nvml.Readings, error) {
	if err := r.refusal(); err != nil {
		r.calls.Add(1)
		return nvml.Readings{}, err
	}
	return r.Driver.Readings(ctx, pci)
}

func (r *refusing) Health(ctx context.Context, pci string) (nvml.Health, error) {
	if err := r.refusal(); err != nil {
		r.calls.Add(1)
		return nvml.Health{}, err
	}
	return r.Driver.Health(ctx, pci)
}

func TestStuckOrPausedDriverIsNotAskedForItsGPUs(t *testing.T) {
	for _, cause := range []error{nvml.ErrStuck, nvml.ErrPaused} {
		t.Run(cause.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				door := &refusing{}
				b := sample(t, 2, nvml.SamplerOptions{}, func(d nvml.Driver) nvml.Driver {
					door.Driver = d
					return door
				})
				pass(500 * time.Millisecond)
				observed := b.since()
				before := b.Latest()
				door.refuse(fmt.Errorf("inventory: %w", cause))
				pass(10 * time.Second)
				if got := observed(); len(got) == 0 || slices.ContainsFunc(got, func(o string) bool { return o != "no inventory" }) {
					t.Errorf("observed %q, want only that there is no inventory", got)
				}
				if n := door.calls.Load(); n > 2 {
					t.Errorf("%d calls about GPUs, want the first reading of each at most", n)
				}
				s := b.Latest()
				want(t, "inventory that is known", before.Inventory, s.Inventory)
				for i, g := range s.GPUs {
					if !errors.Is(g.ReadingsErr, cause) || !errors.Is(g.HealthErr, cause) || g.Missing {
						t.Errorf("GPU %d: readings %v, health %v, missing %t, want %v", i, g.ReadingsErr, g.HealthErr, g.Missing, cause)
					}
					want(t, "what is known of a GPU", before.GPUs[i].Health, g.Health)
				}

				door.refuse(nil)
				b.Refresh("")
				pass(200 * time.Millisecond) // the next try would be later
				for i, g := range b.Latest().GPUs {
					if g.HealthErr != nil || g.ReadingsErr != nil || !g.HealthFresh(time.Now()) {
						t.Errorf("GPU %d: health %v, readings %v afterwards", i, g.HealthErr, g.ReadingsErr)
					}
				}
			})
		})
	}
}

// nameless is a driver that cannot say who the GPU at an address is.
type nameless struct {
	nvml.Driver
	pci  atomic.Pointer[string]
	load atomic.Pointer[string] // instead of the driver's
}

func (n *nameless) Inventory(ctx context.Context) (nvml.Inventory, error) {
	inv, err := n.Driver.Inventory(ctx)
	for i, g := range inv.GPUs {
		if pci := n.pci.Load(); pci != nil && g.PCI == *pci {
			inv.GPUs[i] = nvml.GPU{PCI: g.PCI, Minor: -1}
		}
	}
	if load := n.load.Load(); load != nil {
		inv.Load = *load
	}
	return inv, err
}

func TestLostGPUKeepsItsIdentityUntilTheDriverIsLoadedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := &nameless{}
		b := sample(t, 2, nvml.SamplerOptions{}, func(d nvml.Driver) nvml.Driver {
			door.Driver = d
			return door
		})
		before := b.Latest()
		door.pci.Store(&b.pcis[1])
		pass(time.Minute)
		after := b.Latest()
		want(t, "the GPU that has no name", before.GPUs[1].GPU, after.GPUs[1].GPU)
		want(t, "inventory", before.Inventory, after.Inventory)
		told := b.observed()
		i := slices.IndexFunc(told, func(o nvml.Observation) bool { return o.Inventory != nil && o.Time.After(before.Time) })
		want(t, "what was observed", before.Inventory.GPUs, told[i].Inventory.GPUs)

		door.load.Store(new("another"))
		pass(time.Minute)
		want(t, "after a new loading", nvml.GPU{PCI: b.pcis[1], Minor: -1}, b.Latest().GPUs[1].GPU)
		door.pci.Store(nil)
		pass(time.Second)
		want(t, "the GPU that answers, and by now can say who it is", before.GPUs[1].GPU, b.Latest().GPUs[1].GPU)
	})
}

func TestVanishedGPUIsKeptAndTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 3, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		observed := b.since()
		b.apply(t, 1, fake.Missing(true))
		pass(time.Second)
		want(t, "observed", []string{"inventory of 2", "1 missing"}, observed())
		s := b.Latest()
		if g := s.GPUs[1]; !g.Missing || g.Index != 1 || g.GPU.UUID == "" || !errors.Is(g.HealthErr, nvml.ErrNotFound) {
			t.Errorf("vanished GPU %+v: want it missing, known and with its index", g)
		}
		if s.GPUs[0].Index != 0 || s.GPUs[2].Index != 2 {
			t.Errorf("the others have indexes %d and %d, want 0 and 2", s.GPUs[0].Index, s.GPUs[2].Index)
		}
		calls := s.GPUs[1].Calls
		pass(20 * time.Second)
		want(t, "calls while it is missing", calls, b.Latest().GPUs[1].Calls)

		b.apply(t, 1, fake.Missing(false))
		observed = b.since()
		b.Refresh("")
		pass(200 * time.Millisecond)
		if got := observed(); len(got) < 2 || got[0] != "inventory of 3" || !slices.Contains(got, "1 none") {
			t.Errorf("observed %q, want the inventory and the health of the GPU that is back", got)
		}
		if g := b.Latest().GPUs[1]; g.Missing || g.HealthErr != nil || g.Index != 1 {
			t.Errorf("GPU that is back: %+v", g)
		}
	})
}

func TestNewGPUGetsTheLowestFreeIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 3, nvml.SamplerOptions{}, nil, fake.Missing(true))
		b.apply(t, 0, fake.Missing(false))
		b.Refresh("")
		pass(time.Second)
		indexes := map[string]int{b.pcis[1]: 0, b.pcis[2]: 1, b.pcis[0]: 2}
		want(t, "indexes", indexes, b.Index())
		var order []string
		for _, g := range b.Latest().GPUs {
			order = append(order, g.GPU.PCI)
		}
		want(t, "order of the sample", []string{b.pcis[1], b.pcis[2], b.pcis[0]}, order)
	})
}

func TestIndexesOfTheBootAreTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := fake.Node("h100", 2)
		if err != nil {
			t.Fatal(err)
		}
		const gone = "0000:01:00.0"
		indexes := map[string]int{gone: 0, s.GPUs[0].PCI: 1}
		b := sample(t, 2, nvml.SamplerOptions{Index: indexes}, nil)
		want(t, "indexes", map[string]int{gone: 0, b.pcis[0]: 1, b.pcis[1]: 2}, b.Index())
		if g := b.Latest().GPUs[0]; g.GPU.PCI != gone || !g.Missing || g.Calls.Health.Count != 0 {
			t.Errorf("first GPU %+v: want the one that is gone, missing", g)
		}
		if !slices.ContainsFunc(b.observed(), func(o nvml.Observation) bool { return o.PCI == gone && o.Missing }) {
			t.Error("the GPU that is gone was not told of")
		}
		want(t, "indexes given", map[string]int{gone: 0, s.GPUs[0].PCI: 1}, indexes)
	})
}

func TestRefreshTakesHealthAtOnceButNotWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		observed := b.since()
		b.apply(t, 1, fake.Recovery(nvml.RecoverGPUReset))
		b.Refresh(b.pcis[1])
		synctest.Wait()
		want(t, "observed at once", []string{"1 gpu-reset"}, observed())
		before := b.Latest().GPUs[1].Calls.Health.Count
		for range 1000 { // a storm of errors, for a second
			b.Refresh(b.pcis[1])
			pass(time.Millisecond)
		}
		if calls := b.Latest().GPUs[1].Calls.Health.Count - before; calls < 9 || calls > 11 {
			t.Errorf("%d calls in a second of refreshes, want about 10", calls)
		}
	})
}

func TestLookIsToldBeforeItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		for range 3 { // however soon after each other
			observed := b.since()
			b.apply(t, 1, fake.Recovery(nvml.RecoverGPUReset))
			began := time.Now()
			if err := b.Look(t.Context(), b.pcis[1]); err != nil {
				t.Fatal(err)
			}
			want(t, "observed", []string{"1 gpu-reset"}, observed())
			if took := time.Since(began); took != 0 {
				t.Errorf("it waited for %v", took)
			}
		}
	})
}

func TestLookWaitsNoLongerThanItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		b.apply(t, 1, fake.Hang(time.Hour))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := b.Look(ctx, b.pcis[1]); !errors.Is(err, nvml.ErrTimeout) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := b.Look(t.Context(), b.pcis[0]); err != nil {
			t.Errorf("the other GPU: %v", err)
		}
		if err := b.Look(t.Context(), "0000:ff:00.0"); !errors.Is(err, nvml.ErrNotFound) {
			t.Errorf("one that was never listed: %v", err)
		}
	})
}

func TestRefreshOfTheNodeSeesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 1, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		before := b.Latest().Inventory.Load
		b.apply(t, 0, fake.Reload{})
		b.Refresh("")
		synctest.Wait()
		if after := b.Latest().Inventory.Load; after == before {
			t.Errorf("load is %q before and after the reload", after)
		}
	})
}

func TestReloadHasTheHealthOfEveryGPUTakenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		pass(500 * time.Millisecond)
		told := b.since()
		b.apply(t, 0, fake.Reload{})
		b.Refresh("")
		pass(200 * time.Millisecond)
		got := told()
		slices.Sort(got)
		want(t, "outcomes", []string{"0 none", "1 none", "inventory of 2"}, got)
	})
}

func TestSampleDoesNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := sample(t, 2, nvml.SamplerOptions{}, nil)
		s := b.Latest()
		copied := *s
		copied.GPUs = slices.Clone(s.GPUs)
		b.apply(t, 0, fake.Lost(true), fake.Missing(true))
		pass(time.Minute)
		if b.Latest() == s {
			t.Fatal("there is no newer sample")
		}
		want(t, "old sample", copied, *s)
	})
}

func TestAnswersCountForAWhile(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name string
		gpu  nvml.GPUSample
		want bool
	}{
		{"never answered", nvml.GPUSample{}, false},
		{"just answered", nvml.GPUSample{Answered: now}, true},
		{"before the default is over", nvml.GPUSample{Answered: now.Add(-29 * time.Second)}, true},
		{"after the default", nvml.GPUSample{Answered: now.Add(-30 * time.Second)}, false},
		{"after its own time", nvml.GPUSample{Answered: now.Add(-5 * time.Second), Freshness: 5 * time.Second}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.gpu.Fresh(now); got != test.want {
				t.Errorf("fresh %t, want %t", got, test.want)
			}
			parts := nvml.GPUSample{ReadingsAnswered: test.gpu.Answered, Freshness: test.gpu.Freshness}
			if got := parts.ReadingsFresh(now); got != test.want || parts.HealthFresh(now) {
				t.Errorf("readings fresh %t, health fresh %t, want %t and false", got, parts.HealthFresh(now), test.want)
			}
		})
	}
}

func TestLatestIsEmptyBeforeTheFirstAnswer(t *testing.T) {
	want(t, "sample", &nvml.Sample{}, nvml.NewSampler(untouchable{}, nvml.SamplerOptions{}).Latest())
}

// untouchable is a driver that nobody may ask: constructors start nothing.
type untouchable struct{ nvml.Driver }

func TestRecoveryActionInWords(t *testing.T) {
	for action, words := range map[nvml.RecoveryAction]string{
		nvml.RecoverNone: "none", nvml.RecoverDrainAndReset: "drain-and-reset", nvml.RecoverSystemReboot: "system-reboot", 8: "8", -1: "-1",
	} {
		if got := action.String(); got != words {
			t.Errorf("action %d is %q, want %q", int(action), got, words)
		}
	}
}

// BenchmarkTick is the work of one second on a node with eight GPUs: a reading
// of each, and a sample after each.
func BenchmarkTick(b *testing.B) {
	s, err := fake.Node("h100", 8)
	if err != nil {
		b.Fatal(err)
	}
	sampler := nvml.NewSampler(fake.New(s), nvml.SamplerOptions{})
	sampler.Begin(b.Context())
	b.ReportAllocs()
	for b.Loop() {
		sampler.Tick(b.Context())
	}
	if g := sampler.Latest().GPUs[7]; g.ReadingsErr != nil || !g.Readings.Power.OK {
		b.Fatalf("GPU 7 has not answered: %v", g.ReadingsErr)
	}
}
