package client_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
	"gpuvet.dev/nvml/nvmltest"
)

// newClient is a client of the scripted worker; change may set options. It is
// closed with the test.
func newClient(t testing.TB, s script, change func(*client.Options)) *client.Client {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := client.Options{
		Worker: self,
		// The race detector has a process sleep for a second before it ends.
		Env: []string{scriptDir + "=" + string(s), "GORACE=atexit_sleep_ms=0"},
		// Starting this test binary takes its time where the race detector is on.
		OpenDeadline: 20 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	c := client.New(o)
	t.Cleanup(c.Close)
	return c
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func want(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func mustRead(t testing.TB, c *client.Client, gpu int) {
	t.Helper()
	if _, err := c.Readings(t.Context(), pciOf(gpu)); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	nvmltest.Run(t, func(t *testing.T) nvml.Driver {
		t.Helper()
		return newClient(t, newScript(t, 3), nil)
	})
}

func TestNewStartsNothing(t *testing.T) {
	s := newScript(t, 1)
	newClient(t, s, func(o *client.Options) {
		o.Library = func() (string, error) {
			t.Error("the library was looked for")
			return "", nil
		}
	})
}

func TestOneWorkerAnswersWhereNothingIsWrong(t *testing.T) {
	s := newScript(t, 8)
	c := newClient(t, s, nil)
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if _, err := c.Readings(t.Context(), pciOf(i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	want(t, "stats", client.Stats{Started: 1, Stuck: map[string]time.Time{}}, c.Stats())
}

func TestInventoryKeepsWhatWasKnownOfAGPU(t *testing.T) {
	s := newScript(t, 3)
	c := newClient(t, s, nil)
	before, err := c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, "lost", "fail", "describe", pciOf(1))
	after, err := c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "inventory with a lost GPU", before, after)

	s.put(t, "570.195.03@2", "load")
	after, err = c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before.Load, before.GPUs[1] = "570.195.03@2", nvml.GPU{PCI: pciOf(1), Minor: -1}
	want(t, "inventory after a reload", before, after)
}

func TestInventoryDescribesWhatChanged(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, nil)
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(t, "GPU-another", "uuid", pciOf(0))
	inv, err := c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "UUID", "GPU-another", inv.GPUs[0].UUID)
}

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
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.Probation = 100*time.Millisecond, 400*time.Millisecond
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
	s.take(t, "hang", "readings", pciOf(0))
	eventually(t, "the GPU to answer", func() bool {
		_, err := c.Readings(t.Context(), pciOf(0))
		return err == nil
	})
}

func TestWorkerThatDiesFailsItsCallWithTheCause(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	mustRead(t, c, 0)
	s.put(t, "", "die", "readings", pciOf(0))
	_, err := c.Readings(t.Context(), pciOf(0))
	if err == nil || !strings.Contains(err.Error(), "exit status 127: gpuvet-nvml: symbol lookup error: undefined symbol") {
		t.Fatalf("readings: %v, want how the worker ended and what it said", err)
	}
	asked := len(s.asked(t))
	if _, again := c.Readings(t.Context(), pciOf(0)); again == nil || again.Error() != err.Error() || len(s.asked(t)) != asked {
		t.Errorf("at once after: %v, want the same without another worker", again)
	}
	mustRead(t, c, 1) // is not to blame
	s.take(t, "die", "readings", pciOf(0))
	eventually(t, "the GPU to be asked again", func() bool {
		_, err := c.Readings(t.Context(), pciOf(0))
		return err == nil
	})
	want(t, "died", uint64(1), c.Stats().Died)
}

func TestWorkerKilledWhileIdleIsReplaced(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, nil)
	mustRead(t, c, 0)
	killWorker(t, s.pids(t)[0])
	eventually(t, "readings by another worker", func() bool {
		_, err := c.Readings(t.Context(), pciOf(0))
		return err == nil && len(s.pids(t)) == 2
	})
	want(t, "died", uint64(1), c.Stats().Died)
}

func killWorker(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker to be gone", func() bool { return !alive(pid) })
}

func TestStartsAreHeldBackWhileWorkersDie(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, nil)
	s.put(t, "", "die", "open")
	began := time.Now()
	for time.Since(began) < 2*time.Second {
		if _, err := c.Readings(t.Context(), pciOf(0)); err == nil || !strings.Contains(err.Error(), "exit status 127") {
			t.Fatalf("readings: %v, want how the worker ended", err)
		}
		time.Sleep(time.Millisecond)
	}
	// At 0, 100, 300, 700 and 1500 ms, each a little later.
	if n := c.Stats().Started; n < 2 || n > 5 {
		t.Errorf("%d workers were started in 2 s, want 5 at most", n)
	}
	s.take(t, "die", "open")
	eventually(t, "readings", func() bool {
		_, err := c.Readings(t.Context(), pciOf(0))
		return err == nil
	})
}

func TestWorkerThatCannotBeUnderstoodIsReplaced(t *testing.T) {
	for name, test := range map[string]struct{ file, text, want string }{
		"no JSON":           {"say-readings-" + pciOf(0), "Segmentation fault\n", "no answer"},
		"no answer":         {"say-readings-" + pciOf(0), "{}\n", "does not fit"},
		"two answers":       {"say-readings-" + pciOf(0), "{\"readings\":{}}\n{\"readings\":{}}\n", "more than it was asked"},
		"another's answer":  {"say-readings-" + pciOf(0), "{\"health\":{}}\n", "does not fit"},
		"line without end":  {"say-readings-" + pciOf(0), strings.Repeat("x", 2<<20), "more than 1048576 bytes"},
		"flood on one line": {"chatter", "{\"readings\":{}}", "more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, 2)
			c := newClient(t, s, nil)
			mustRead(t, c, 1)
			s.put(t, test.text, test.file)
			if _, err := c.Readings(t.Context(), pciOf(0)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("readings: %v, want %q in it", err, test.want)
			}
			pid := s.pids(t)[0]
			eventually(t, "the worker to be gone", func() bool { return !alive(pid) })
			s.take(t, test.file)
			mustRead(t, c, 1)
			eventually(t, "the count", func() bool { return c.Stats().Refused == 1 && c.Stats().Died == 1 })
		})
	}
}

func TestWorkerThatNeverStopsIsReplaced(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	mustRead(t, c, 1)
	s.put(t, "{\"readings\":{}}\n", "chatter")
	// Nothing is wrong with what it says first.
	if _, err := c.Readings(t.Context(), pciOf(0)); err != nil && !strings.Contains(err.Error(), "asked") {
		t.Errorf("readings: %v, want that more was said than asked", err)
	}
	eventually(t, "the worker to be refused", func() bool { return c.Stats().Refused == 1 })
	pid := s.pids(t)[0]
	eventually(t, "the worker to be gone", func() bool { return !alive(pid) })
	s.take(t, "chatter")
	eventually(t, "readings", func() bool { // starts may be held back a little
		_, err := c.Readings(t.Context(), pciOf(1))
		return err == nil
	})
}

func TestWorkerThatSpeaksUnaskedIsReplaced(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, nil)
	s.put(t, "{}\n{}\n", "say", "open")
	if _, err := c.Readings(t.Context(), pciOf(0)); err == nil || !strings.Contains(err.Error(), "asked") {
		t.Errorf("readings: %v, want that more was said than asked", err)
	}
}

func TestWorkerOfAnotherReleaseIsRefused(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, nil)
	s.put(t, "7", "protocol")
	_, err := c.Readings(t.Context(), pciOf(0))
	if err == nil {
		t.Fatal("readings by a worker of another protocol")
	}
	for _, part := range []string{"v9", "protocol 7", "protocol 1", "one release"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestMissingWorkerIsNoDriver(t *testing.T) {
	c := newClient(t, newScript(t, 1), func(o *client.Options) { o.Worker = "/nonexistent/gpuvet-nvml" })
	_, err := c.Inventory(t.Context())
	if !errors.Is(err, nvml.ErrNoDriver) || !strings.Contains(err.Error(), "/nonexistent/gpuvet-nvml") {
		t.Errorf("inventory: %v, want %v and where the worker was expected", err, nvml.ErrNoDriver)
	}
}

func TestDriverThatArrivesLaterIsFound(t *testing.T) {
	s := newScript(t, 1)
	var library func() (string, error)
	var mu sync.Mutex
	c := newClient(t, s, func(o *client.Options) {
		o.Library = func() (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return library()
		}
	})
	gone := errors.New("looked in /usr/lib64")
	library = func() (string, error) { return "", gone }
	if _, err := c.Inventory(t.Context()); !errors.Is(err, nvml.ErrNoDriver) || !errors.Is(err, gone) {
		t.Errorf("without a library: %v, want %v and why", err, nvml.ErrNoDriver)
	}
	mu.Lock()
	library = func() (string, error) { return "", nil }
	mu.Unlock()
	s.put(t, "no-driver", "fail", "open")
	if _, err := c.Inventory(t.Context()); !errors.Is(err, nvml.ErrNoDriver) {
		t.Errorf("with a library alone: %v, want %v", err, nvml.ErrNoDriver)
	}
	s.take(t, "fail", "open")
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Errorf("with the driver: %v", err)
	}
	if s := c.Stats(); s.Died != 0 {
		t.Errorf("%d workers died", s.Died)
	}
}

func TestRenewedDriverIsAskedOnceMore(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, nil)
	mustRead(t, c, 0)
	s.put(t, "renewed once", "fail", "readings", pciOf(0))
	mustRead(t, c, 0)
	want(t, "workers", uint64(2), c.Stats().Started)
	s.put(t, "renewed", "fail", "readings", pciOf(0))
	if _, err := c.Readings(t.Context(), pciOf(0)); err == nil || !strings.Contains(err.Error(), "unloaded") {
		t.Errorf("driver that is taken away on and on: %v", err)
	}
	s.take(t, "fail", "readings", pciOf(0))
	mustRead(t, c, 0)
}

func TestErrorsOfOneGPUAreItsOwn(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	for kind, cause := range map[string]error{"lost": nvml.ErrLost, "not-found": nvml.ErrNotFound} {
		s.put(t, kind, "fail", "readings", pciOf(0))
		if _, err := c.Readings(t.Context(), pciOf(0)); !errors.Is(err, cause) {
			t.Errorf("readings: %v, want %v", err, cause)
		}
		mustRead(t, c, 1)
	}
	want(t, "workers", uint64(1), c.Stats().Started)
}

func TestTenThousandReadingsLeaveNothingBehind(t *testing.T) {
	s := newScript(t, 8)
	c := newClient(t, s, nil)
	read := func(n int) {
		for i := range n {
			mustRead(t, c, i%8)
		}
	}
	read(500)
	goroutines, descriptors, heap := runtime.NumGoroutine(), openDescriptors(t), heapBytes()
	read(10_000)
	eventually(t, "goroutines and descriptors to be as before", func() bool {
		return runtime.NumGoroutine() <= goroutines && openDescriptors(t) <= descriptors
	})
	if grown := int64(heapBytes()) - int64(heap); grown > 256<<10 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	want(t, "workers", uint64(1), c.Stats().Started)
}

func TestHangsLeaveNothingBehind(t *testing.T) {
	s := newScript(t, 8)
	c := newClient(t, s, func(o *client.Options) { o.Deadline = 300 * time.Millisecond })
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	hang := func() {
		s.put(t, "", "hang", "readings", pciOf(0))
		_, _ = c.Readings(t.Context(), pciOf(0))
		mustRead(t, c, 1)
		s.take(t, "hang", "readings", pciOf(0))
		eventually(t, "the GPU to be asked again", func() bool { return len(c.Stats().Stuck) == 0 })
	}
	settled := func() bool { return s.alive(t) == 1 }
	hang()
	eventually(t, "one worker", settled)
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	for range 5 {
		hang()
	}
	eventually(t, "one worker, and goroutines and descriptors as before", func() bool {
		return settled() && runtime.NumGoroutine() <= goroutines && openDescriptors(t) <= descriptors
	})
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkReadings(b *testing.B) {
	s := newScript(b, 1)
	c := newClient(b, s, nil)
	mustRead(b, c, 0)
	b.ReportAllocs()
	for b.Loop() {
		mustRead(b, c, 0)
	}
}
