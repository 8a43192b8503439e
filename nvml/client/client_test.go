package client_test

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

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
		StartDeadline: 20 * time.Second,
		OpenDeadline:  20 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	c := client.New(o)
	t.Cleanup(c.Close)
	return c
}

// observed gives what is logged, from a level on.
func observed(o *client.Options, level zapcore.Level) *observer.ObservedLogs {
	core, logs := observer.New(level)
	o.Log = zap.New(core)
	return logs
}

// messages gives what was logged, in order.
func messages(logs *observer.ObservedLogs) (all []string) {
	for _, entry := range logs.All() {
		all = append(all, entry.Message)
	}
	return all
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

func TestMissingWorkerIsNoDriver(t *testing.T) {
	var logs *observer.ObservedLogs
	c := newClient(t, newScript(t, 1), func(o *client.Options) {
		o.Worker = "/nonexistent/gpuvet-nvml"
		logs = observed(o, zap.InfoLevel)
	})
	for began := time.Now(); time.Since(began) < 500*time.Millisecond; time.Sleep(time.Millisecond) {
		_, err := c.Inventory(t.Context())
		if !errors.Is(err, nvml.ErrNoDriver) || err.Error() != "gpuvet-nvml is not there: expected at /nonexistent/gpuvet-nvml" {
			t.Fatalf("inventory: %v, want %v, and where the worker was expected", err, nvml.ErrNoDriver)
		}
	}
	want(t, "log", []string{"worker is not started"}, messages(logs))
}

// Its folder may be on a server that does not answer.
func TestSearchForTheLibraryMayHang(t *testing.T) {
	release := make(chan struct{})
	var searches atomic.Int32
	c := newClient(t, newScript(t, 1), func(o *client.Options) {
		o.StartDeadline = 100 * time.Millisecond
		o.Library = func() (string, error) {
			searches.Add(1)
			<-release
			return "", errors.New("looked in /usr/lib64")
		}
	})
	for range 3 {
		if _, err := c.Inventory(t.Context()); err == nil || errors.Is(err, nvml.ErrNoDriver) || !strings.Contains(err.Error(), "within 100ms") {
			t.Fatalf("inventory: %v, want that there is no answer within 100 ms", err)
		}
		pause(t.Context(), 450*time.Millisecond) // longer than starts are held back
	}
	want(t, "searches", int32(1), searches.Load())
	close(release)
	eventually(t, "the end of the search", func() bool {
		_, err := c.Inventory(t.Context())
		return errors.Is(err, nvml.ErrNoDriver)
	})
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
	if _, err := c.Readings(t.Context(), pciOf(0)); err == nil || !strings.Contains(err.Error(), "nvmlX: renewed") {
		t.Errorf("driver that is taken away on and on: %v", err)
	}
	s.take(t, "fail", "readings", pciOf(0))
	mustRead(t, c, 0)
}

// A worker that was stuck while the driver was loaded anew comes back last.
func TestLateAnswerOfAnEarlierLoadingReplacesNobody(t *testing.T) {
	s := newScript(t, 2)
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) {
		logs = observed(o, zap.InfoLevel)
		o.Deadline = 300 * time.Millisecond
	})
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(t, "", "hang", "readings", pciOf(0))
	if _, err := c.Readings(t.Context(), pciOf(0)); !errors.Is(err, nvml.ErrTimeout) {
		t.Fatal(err)
	}
	s.put(t, "570.195.03@2", "load")
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(t, "renewed once", "fail", "readings", pciOf(0))
	s.take(t, "hang", "readings", pciOf(0))
	eventually(t, "the stuck worker to come back and be ended", func() bool { return s.alive(t) == 1 && len(c.Stats().Stuck) == 0 })
	mustRead(t, c, 0)
	mustRead(t, c, 1)
	want(t, "workers", uint64(2), c.Stats().Started)
	want(t, "log", []string{"call about a GPU does not return; other workers ask about the others", "stuck worker has come back; GPU is asked again"}, messages(logs))
}

// Those that are at work when the driver goes each say so, one after the other.
func TestReloadIsToldOnce(t *testing.T) {
	s := newScript(t, 2)
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) {
		logs = observed(o, zap.InfoLevel)
		o.Deadline, o.Patience = 20*time.Second, 20*time.Millisecond
	})
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(t, "", "hang", "readings", pciOf(0))
	var out sync.WaitGroup
	out.Go(func() {
		if _, err := c.Readings(t.Context(), pciOf(0)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the call to be out", func() bool { return slices.Contains(s.asked(t), "readings "+pciOf(0)) })
	s.put(t, "renewed once", "fail", "readings", pciOf(1))
	mustRead(t, c, 1) // by a third worker, after the second
	s.put(t, "renewed once", "fail", "readings", pciOf(0))
	s.take(t, "hang", "readings", pciOf(0))
	out.Wait()
	want(t, "workers", uint64(3), c.Stats().Started)
	want(t, "log", []string{"driver was taken away, or loaded anew; workers are replaced"}, messages(logs))
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
