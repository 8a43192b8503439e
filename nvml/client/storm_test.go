package client_test

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
)

// TestStormPasses has everything go wrong at once, for a while, and wants all to
// be well afterwards: every call came back, every GPU answers, and nothing is
// left behind.
func TestStormPasses(t *testing.T) {
	const gpus = 4
	s := newScript(t, gpus)
	before := runtime.NumGoroutine()
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.OpenDeadline, o.Patience = 50*time.Millisecond, 2*time.Second, 20*time.Millisecond
		o.Probation, o.Silence, o.MaxStuck = 300*time.Millisecond, 200*time.Millisecond, 2
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i := range gpus {
		for _, ask := range []func(context.Context, string) error{
			func(ctx context.Context, pci string) error { _, err := c.Readings(ctx, pci); return err },
			func(ctx context.Context, pci string) error { _, err := c.Health(ctx, pci); return err },
			func(ctx context.Context, _ string) error { _, err := c.Inventory(ctx); return err },
		} {
			all.Go(func() {
				for ctx.Err() == nil {
					limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
					_ = ask(limited, pciOf(i))
					cancel()
					pause(ctx, 5*time.Millisecond)
				}
			})
		}
	}
	all.Go(func() {
		for ctx.Err() == nil {
			_ = c.Events(ctx, func(nvml.Event) {})
			pause(ctx, 20*time.Millisecond)
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, 500*time.Millisecond)
			limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			_ = c.Release(limited)
			cancel()
		}
	})
	for seed := range uint64(3) {
		all.Go(func() { s.storm(ctx, t, gpus, seed) })
	}
	all.Wait()
	t.Logf("%+v", c.Stats())

	for i := range gpus {
		eventually(t, "each GPU to answer", func() bool {
			_, err := c.Readings(t.Context(), pciOf(i))
			return err == nil
		})
	}
	inv, err := c.Inventory(t.Context())
	if err != nil || len(inv.GPUs) != gpus || inv.GPUs[gpus-1].UUID == "" {
		t.Errorf("inventory %+v: %v", inv, err)
	}
	eventually(t, "nothing to be stuck", func() bool {
		stats := c.Stats()
		return len(stats.Stuck) == 0 && stats.DriverStuck.IsZero()
	})
	c.Close()
	eventually(t, "nothing to be left", func() bool { return s.alive(t) == 0 && runtime.NumGoroutine() <= before })
}

// storm puts and takes the files that have workers do wrong, and ends with none.
func (s script) storm(ctx context.Context, t *testing.T, gpus int, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	asks := []string{"describe", "readings", "health", "watch"}
	faults := map[string]string{"hang": "", "die": "", "say": "nonsense\n", "fail": "renewed"}
	kinds := []string{"hang", "hang", "die", "say", "fail"}
	for ctx.Err() == nil {
		kind := kinds[random.IntN(len(kinds))]
		parts := []string{kind, asks[random.IntN(len(asks))], pciOf(random.IntN(gpus))}
		if random.IntN(10) == 0 {
			parts = []string{kind, []string{"open", "list"}[random.IntN(2)]}
		}
		// Others may be at the same file.
		_ = os.WriteFile(s.path(parts...), []byte(faults[kind]), 0o600)
		pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
		_ = os.Remove(s.path(parts...))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
