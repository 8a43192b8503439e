package client_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
)

func TestCallsWaitNoLongerThanPatienceForAnother(t *testing.T) {
	s := newScript(t, 8)
	c := newClient(t, s, func(o *client.Options) { o.Patience = 50 * time.Millisecond })
	mustRead(t, c, 0)
	s.put(t, "", "hang", "readings", pciOf(3)) // for less than the deadline of a first question
	ctx, cancel := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	hung.Go(func() {
		if _, err := c.Readings(ctx, pciOf(3)); !errors.Is(err, context.Canceled) {
			t.Errorf("readings of the hung GPU: %v", err)
		}
	})
	eventually(t, "the hung call to be sent", func() bool { return len(s.asked(t)) == 3 })
	for i := range 8 {
		if i != 3 {
			mustRead(t, c, i)
		}
	}
	cancel()
	hung.Wait()
	want(t, "workers", uint64(2), c.Stats().Started)

	// What was sent is not sent again while it is out.
	limited, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if _, err := c.Readings(limited, pciOf(3)); !errors.Is(err, nvml.ErrTimeout) {
		t.Errorf("second call about the hung GPU: %v, want %v", err, nvml.ErrTimeout)
	}
	want(t, "workers", uint64(2), c.Stats().Started)
	s.take(t, "hang", "readings", pciOf(3))
	mustRead(t, c, 3)
	eventually(t, "one worker to be left", func() bool { return s.alive(t) == 1 })
}

func TestHungGPULeavesTheOthersWell(t *testing.T) {
	s := newScript(t, 8)
	const deadline = 500 * time.Millisecond
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.Patience = deadline, time.Hour // so that only the deadline helps
		o.Log = zaptest.NewLogger(t)
	})
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(t, "", "hang", "readings", pciOf(3))
	began := time.Now()
	var all sync.WaitGroup
	hung := make(chan error, 1)
	all.Go(func() {
		_, err := c.Readings(t.Context(), pciOf(3))
		hung <- err
	})
	eventually(t, "the hung call to be sent", func() bool {
		asked := s.asked(t)
		return asked[len(asked)-1] == "readings "+pciOf(3)
	})
	var mu sync.Mutex
	var last time.Duration
	for i := range 8 {
		if i == 3 {
			continue
		}
		all.Go(func() {
			if _, err := c.Readings(t.Context(), pciOf(i)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			last = max(last, time.Since(began)-deadline)
		})
	}
	all.Wait()
	t.Logf("the last of the others answered %s past the deadline", last)
	if err := <-hung; !errors.Is(err, nvml.ErrTimeout) {
		t.Errorf("hung call: %v, want %v", err, nvml.ErrTimeout)
	}
	stats := c.Stats()
	if since := stats.Stuck[pciOf(3)]; len(stats.Stuck) != 1 || since.Before(began) || stats.Started != 2 || stats.Killed != 0 {
		t.Errorf("stats %+v: want GPU 3 stuck, two workers, none killed", stats)
	}

	asked := len(s.asked(t))
	began = time.Now()
	_, readings := c.Readings(t.Context(), pciOf(3))
	_, health := c.Health(t.Context(), pciOf(3))
	for _, err := range []error{readings, health} {
		if !errors.Is(err, nvml.ErrTimeout) || !strings.Contains(err.Error(), "asked for readings at 20") {
			t.Errorf("call meanwhile: %v, want %v and since when", err, nvml.ErrTimeout)
		}
	}
	if took := time.Since(began); took > deadline/2 || len(s.asked(t)) != asked {
		t.Errorf("calls meanwhile took %s and asked the driver %d times, want neither", took, len(s.asked(t))-asked)
	}
	inv, err := c.Inventory(t.Context())
	if err != nil || len(inv.GPUs) != 8 || inv.GPUs[3].UUID == "" {
		t.Errorf("inventory meanwhile: %v, %+v", err, inv.GPUs)
	}

	s.take(t, "hang", "readings", pciOf(3))
	eventually(t, "the GPU to be asked again", func() bool { return len(c.Stats().Stuck) == 0 })
	mustRead(t, c, 3)
	mustRead(t, c, 4)
	want(t, "workers", uint64(2), c.Stats().Started)
}

func TestFiveHangsMakeTheDriverStuck(t *testing.T) {
	s := newScript(t, 8)
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.Patience = 500*time.Millisecond, 50*time.Millisecond
		o.Log = zaptest.NewLogger(t)
	})
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		s.put(t, "", "hang", "health", pciOf(i))
		if _, err := c.Health(t.Context(), pciOf(i)); !errors.Is(err, nvml.ErrTimeout) {
			t.Fatalf("health of GPU %d: %v, want %v", i, err, nvml.ErrTimeout)
		}
	}
	_, readings := c.Readings(t.Context(), pciOf(7))
	_, inventory := c.Inventory(t.Context())
	events := c.Events(t.Context(), func(nvml.Event) {})
	for _, err := range []error{readings, inventory, events} {
		if !errors.Is(err, nvml.ErrStuck) || !strings.Contains(err.Error(), "4 calls") {
			t.Errorf("error %v, want %v and how many calls", err, nvml.ErrStuck)
		}
	}
	if s := c.Stats(); s.Killed != 1 || s.DriverStuck.IsZero() {
		t.Errorf("stats %+v: want one killed, and the driver stuck", s)
	}
	eventually(t, "the one too many to be gone", func() bool { return len(c.Stats().Stuck) == 4 })
	if _, err := c.Readings(t.Context(), pciOf(7)); !errors.Is(err, nvml.ErrStuck) {
		t.Errorf("once that one is gone: %v, want still %v", err, nvml.ErrStuck)
	}

	s.take(t, "hang", "health", pciOf(2))
	eventually(t, "the driver to be asked again", func() bool { return c.Stats().DriverStuck.IsZero() })
	mustRead(t, c, 7)
	mustRead(t, c, 2)
	if _, err := c.Health(t.Context(), pciOf(0)); !errors.Is(err, nvml.ErrTimeout) {
		t.Errorf("GPU that is stuck on: %v, want %v", err, nvml.ErrTimeout)
	}
}

func TestHangInOpenOrListIsTheDrivers(t *testing.T) {
	for _, ask := range []string{"open", "list"} {
		t.Run(ask, func(t *testing.T) {
			s := newScript(t, 2)
			c := newClient(t, s, func(o *client.Options) { o.Deadline, o.OpenDeadline = 500*time.Millisecond, 2*time.Second })
			s.put(t, "", "hang", ask)
			if _, err := c.Inventory(t.Context()); !errors.Is(err, nvml.ErrStuck) {
				t.Fatalf("inventory: %v, want %v", err, nvml.ErrStuck)
			}
			if _, err := c.Readings(t.Context(), pciOf(0)); !errors.Is(err, nvml.ErrStuck) || !strings.Contains(err.Error(), ask) {
				t.Errorf("readings: %v, want %v in %s", err, nvml.ErrStuck, ask)
			}
			want(t, "workers", uint64(1), c.Stats().Started)
			s.take(t, "hang", ask)
			eventually(t, "the driver to be asked again", func() bool { return c.Stats().DriverStuck.IsZero() })
			mustRead(t, c, 0)
			want(t, "workers", uint64(1), c.Stats().Started)
		})
	}
}

func TestFirstQuestionAboutAGPUHasTimeToInitialiseIt(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.OpenDeadline, o.Patience = 200*time.Millisecond, 4*time.Second, 20*time.Millisecond
	})
	s.put(t, "", "hang", "describe", pciOf(1))
	inv, err := c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.GPUs) != 2 || inv.GPUs[0].UUID == "" || inv.GPUs[1].UUID != "" || len(c.Stats().Stuck) != 0 {
		t.Errorf("inventory %+v, stats %+v: want the second GPU listed, without name, and not stuck", inv, c.Stats())
	}
	s.take(t, "hang", "describe", pciOf(1))
	mustRead(t, c, 1)
	s.put(t, "", "hang", "readings", pciOf(1))
	if _, err := c.Readings(t.Context(), pciOf(1)); !errors.Is(err, nvml.ErrTimeout) {
		t.Errorf("readings: %v, want %v", err, nvml.ErrTimeout)
	}
	if since := c.Stats().Stuck[pciOf(1)]; since.IsZero() || time.Since(since) > time.Second {
		t.Errorf("stuck since %s: want the short deadline once it has answered", since)
	}
	s.take(t, "hang", "readings", pciOf(1))
}

func TestProbeIsKilledAfterProbationAndFollowedByAnother(t *testing.T) {
	s := newScript(t, 2)
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.Probation = 100*time.Millisecond, 400*time.Millisecond
		logs = observed(o, zap.InfoLevel)
	})
	mustRead(t, c, 0)
	s.put(t, "", "hang", "readings", pciOf(0))
	if _, err := c.Readings(t.Context(), pciOf(0)); !errors.Is(err, nvml.ErrTimeout) {
		t.Fatal(err)
	}
	eventually(t, "the probe to be killed", func() bool { return len(c.Stats().Stuck) == 0 })
	if s := c.Stats(); s.Killed != 1 || s.Died != 0 {
		t.Errorf("stats %+v: want one killed, none died", s)
	}
	// It has not answered.
	want(t, "log", []string{"call about a GPU does not return; other workers ask about the others", "worker killed", "stuck worker is gone; GPU is asked again"}, messages(logs))
	after, ok := logs.All()[2].ContextMap()["after"].(time.Duration)
	if !ok || after < 400*time.Millisecond || after%(10*time.Millisecond) != 0 {
		t.Errorf("after %v, want it rounded to 10 ms", logs.All()[2].ContextMap()["after"])
	}
	s.take(t, "hang", "readings", pciOf(0))
	eventually(t, "the GPU to answer", func() bool {
		_, err := c.Readings(t.Context(), pciOf(0))
		return err == nil
	})
}
