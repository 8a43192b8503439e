package fake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// followEvents applies actions to GPU 0 and gathers the events of GPUs that a
// follower sees of it.
func followEvents(t *testing.T, d *fake.Driver, told *[]nvml.Event, actions ...fake.Action) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var applied bool
	if err := d.Follow(ctx, time.Millisecond, func(s fake.State) {
		for _, e := range s.Events {
			if !e.Bound && !e.Unbound {
				*told = append(*told, e.Event)
			}
		}
		if applied {
			cancel()
		} else {
			applied = true
			apply(t, d, 0, actions...)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestFollowerSeesEachStepAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(node(t, "h100", 2))
		type shown struct {
			after  time.Duration
			lost   bool
			hangs  fake.Hanging
			events int
		}
		var got []shown
		began := time.Now()
		go func() {
			_ = d.Follow(t.Context(), time.Hour, func(s fake.State) {
				got = append(got, shown{time.Since(began), s.GPUs[1].Lost, s.GPUs[0].Hanging, len(s.Events)})
			})
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		apply(t, d, 1, fake.Lost(true))
		synctest.Wait()
		apply(t, d, 1, fake.Xid{Code: 79})
		synctest.Wait()
		apply(t, d, 0, fake.Uninterruptible(time.Minute))
		synctest.Wait()
		time.Sleep(2 * time.Minute) // it ends by itself
		synctest.Wait()
		want := []shown{
			{after: 0},
			{time.Second, true, fake.Answers, 0},
			{time.Second, true, fake.Answers, 2}, // the Xid, and the recovery action
			{time.Second, true, fake.HangsUninterruptibly, 0},
			{time.Minute + time.Second, true, fake.Answers, 0},
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(shown{})); diff != "" {
			t.Errorf("shown (-want +got):\n%s", diff)
		}
	})
}

func TestFollowerSeesTheDriverComeAndGo(t *testing.T) {
	d := fake.New(node(t, "h100", 1))
	before := d.State()
	apply(t, d, 0, fake.Library("575.57.08"))
	if s := d.State(); s.Driver.Version != "570.195.03" || s.Driver.Library != "575.57.08" {
		t.Errorf("after an upgrade of the packages: driver %s, library %s", s.Driver.Version, s.Driver.Library)
	}
	apply(t, d, 0, fake.Reload{Version: "580.95.05", CUDA: "13.0"})
	after := d.State()
	if after.Load == before.Load || after.Driver.Version != "580.95.05" || after.Driver.Library != "580.95.05" || after.Driver.CUDA != "13.0" {
		t.Errorf("after a reload: load %d, before %d; driver %+v", after.Load, before.Load, after.Driver)
	}
	inventory, err := d.Inventory(t.Context())
	if err != nil || inventory.DriverVersion != "580.95.05" {
		t.Errorf("inventory: %s, %v", inventory.DriverVersion, err)
	}
}

func TestStepOfAllIsOfEachGPU(t *testing.T) {
	s := node(t, "h100", 3)
	d := fake.New(s)
	if err := d.Apply(fake.Step{All: true, Do: fake.Set{fake.Temperature: nvml.Some(77.0)}}); err != nil {
		t.Fatal(err)
	}
	for _, g := range s.GPUs {
		if got := readings(t, d, g.PCI).Temperature.Value; got != 77 {
			t.Errorf("%s: %g °C, want 77", g.PCI, got)
		}
	}
}

func TestHangOfAllIsOneOfTheDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 2)
		d := fake.New(s)
		if err := d.Apply(fake.Step{All: true, Do: fake.Hang(30 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := d.Inventory(ctx); !errors.Is(err, nvml.ErrTimeout) {
			t.Errorf("inventory: %v, want %v", err, nvml.ErrTimeout)
		}
		began := time.Now()
		health(t, d, s.GPUs[1].PCI)
		if waited := time.Since(began); waited != 28*time.Second {
			t.Errorf("a call about a GPU came back after %s, want 28s", waited)
		}
	})
}

func TestFailureEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 2)
		d := fake.New(s)
		apply(t, d, 0, fake.Fail{With: "unknown", For: 10 * time.Second}, fake.FailInit{With: "no-permission"})
		if _, err := d.Health(t.Context(), s.GPUs[0].PCI); err == nil || err.Error() != "health of 0000:18:00.0: the driver says: unknown" {
			t.Errorf("health: %v", err)
		}
		health(t, d, s.GPUs[1].PCI)
		time.Sleep(10 * time.Second)
		health(t, d, s.GPUs[0].PCI)
		apply(t, d, 0, fake.Fail{With: "gpu-is-lost"})
		if _, err := d.Health(t.Context(), s.GPUs[0].PCI); !errors.Is(err, nvml.ErrLost) {
			t.Errorf("health: %v, want %v", err, nvml.ErrLost)
		}
		apply(t, d, 0, fake.Reload{})
		health(t, d, s.GPUs[0].PCI)
	})
}

func TestSixteenGPUsAreInPCIOrder(t *testing.T) {
	for _, profile := range fake.Profiles() {
		s := node(t, profile, 16)
		for i := 1; i < len(s.GPUs); i++ {
			if s.GPUs[i-1].PCI >= s.GPUs[i].PCI {
				t.Errorf("%s: %s stands before %s", profile, s.GPUs[i-1].PCI, s.GPUs[i].PCI)
			}
		}
	}
}
