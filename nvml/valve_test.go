package nvml_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/nvmltest"
)

// newValve is an open valve before two scripted GPUs.
func newValve(t *testing.T, release func(context.Context) error) (*nvml.Valve, *fake.Driver, []fake.GPU) {
	t.Helper()
	s, err := fake.Node("h100", 2)
	if err != nil {
		t.Fatal(err)
	}
	d := fake.New(s)
	v := nvml.NewValve(d, release)
	v.Open()
	return v, d, s.GPUs
}

func TestOpenValveIsADriver(t *testing.T) {
	nvmltest.Run(t, func(t *testing.T) nvml.Driver {
		t.Helper()
		v, _, _ := newValve(t, nil)
		return v
	})
}

func TestClosedValveAsksNothing(t *testing.T) {
	for name, made := range map[string]func(t *testing.T) *nvml.Valve{
		"from the start": func(*testing.T) *nvml.Valve { return nvml.NewValve(unasked{}, nil) },
		"after Close": func(t *testing.T) *nvml.Valve {
			t.Helper()
			v := nvml.NewValve(unasked{}, nil)
			v.Open()
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			return v
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := made(t)
			_, inventory := v.Inventory(t.Context())
			_, readings := v.Readings(t.Context(), "0000:18:00.0")
			_, health := v.Health(t.Context(), "0000:18:00.0")
			events := v.Events(t.Context(), nil)
			for call, err := range map[string]error{"inventory": inventory, "readings": readings, "health": health, "events": events} {
				if !errors.Is(err, nvml.ErrPaused) {
					t.Errorf("%s: %v, want %v", call, err, nvml.ErrPaused)
				}
			}
		})
	}
}

// unasked is a driver that nobody may ask.
type unasked struct{ nvml.Driver }

func TestCloseEndsTheStreamAndReleasesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var releases atomic.Int32
		v, _, _ := newValve(t, func(context.Context) error { releases.Add(1); return nil })
		if closed, err := v.Closed(); closed || err != nil {
			t.Errorf("an open valve is closed: %t, %v", closed, err)
		}
		ended := make(chan error, 1)
		go func() { ended <- v.Events(t.Context(), func(nvml.Event) {}) }()
		synctest.Wait()
		for range 2 {
			if err := v.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-ended; !errors.Is(err, nvml.ErrPaused) {
			t.Errorf("stream ended with %v", err)
		}
		if closed, err := v.Closed(); !closed || err != nil || releases.Load() != 1 {
			t.Errorf("closed %t, %v, after %d releases", closed, err, releases.Load())
		}
		v.Open()
		if _, err := v.Inventory(t.Context()); err != nil {
			t.Errorf("opened again: %v", err)
		}
		if err := v.Close(t.Context()); err != nil || releases.Load() != 2 {
			t.Errorf("closed again: %v, %d releases", err, releases.Load())
		}
	})
}

func TestCloseSaysWhichCallsAreOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := false
		v, d, gpus := newValve(t, func(context.Context) error { released = true; return nil })
		if err := d.Apply(fake.Step{GPU: 1, Do: fake.Hang(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = v.Health(t.Context(), gpus[1].PCI) }()
		synctest.Wait()
		time.Sleep(3 * time.Second)
		limited, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err := v.Close(limited)
		if want := "health of " + gpus[1].PCI + " for 5s"; err == nil || !strings.Contains(err.Error(), want) || released {
			t.Fatalf("close with a call out: %v, want %q; released: %t", err, want, released)
		}
		if _, held := v.Closed(); held == nil {
			t.Error("the valve does not say what holds it")
		}
		if _, err := v.Health(t.Context(), gpus[0].PCI); !errors.Is(err, nvml.ErrPaused) {
			t.Errorf("a valve that waits to be closed lets calls through: %v", err)
		}
		if err := v.Close(t.Context()); err != nil || !released {
			t.Errorf("close when the call is back: %v, released: %t", err, released)
		}
	})
}

func TestCloseSaysWhatWasNotReleased(t *testing.T) {
	worker := errors.New("worker 4711 is stuck")
	v, _, _ := newValve(t, func(context.Context) error { return worker })
	if err := v.Close(t.Context()); !errors.Is(err, worker) {
		t.Errorf("close: %v", err)
	}
	if closed, held := v.Closed(); closed || !errors.Is(held, worker) {
		t.Errorf("closed %t, held by %v", closed, held)
	}
	worker = nil
	if err := v.Close(t.Context()); err != nil {
		t.Errorf("close when it is gone: %v", err)
	}
}

func TestOpenWhileClosingWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v *nvml.Valve
		v, _, _ = newValve(t, func(context.Context) error { v.Open(); return nil })
		if err := v.Close(t.Context()); err == nil {
			t.Error("closed, though it was opened meanwhile")
		}
		if _, err := v.Inventory(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPausedCallsAreNoFailedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v *nvml.Valve
		b := sample(t, 1, nvml.SamplerOptions{}, func(d nvml.Driver) nvml.Driver {
			v = nvml.NewValve(d, nil)
			v.Open()
			return v
		})
		time.Sleep(time.Minute)
		if err := v.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := b.Latest().GPUs[0].Calls
		time.Sleep(time.Hour)
		g := b.Latest().GPUs[0]
		if g.Calls != before || before.Readings.Errors != 0 || !errors.Is(g.HealthErr, nvml.ErrPaused) {
			t.Errorf("calls %+v, before %+v, health: %v", g.Calls, before, g.HealthErr)
		}
	})
}
