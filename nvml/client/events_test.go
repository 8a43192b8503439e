package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/client"
)

// ear listens to the events of a client.
type ear struct {
	ended  chan error
	cancel context.CancelFunc

	mu   sync.Mutex // guards xids
	xids []int
}

func listen(t *testing.T, c *client.Client) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e := &ear{ended: make(chan error, 1), cancel: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.ended <- c.Events(ctx, func(event nvml.Event) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.xids = append(e.xids, event.Xid)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return e
}

func (e *ear) heard() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.xids)
}

func (e *ear) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-e.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("events have not ended")
		return nil
	}
}

// listening says that n workers were asked for events.
func (s script) listening(t *testing.T, n int) func() bool {
	t.Helper()
	return func() bool {
		asked := 0
		for _, what := range s.asked(t) {
			if what == "events" {
				asked++
			}
		}
		return asked == n
	}
}

func (s script) watched(t *testing.T) (gpus []string) {
	t.Helper()
	for _, what := range s.asked(t) {
		if gpu, ok := strings.CutPrefix(what, "watch "); ok {
			gpus = append(gpus, gpu)
		}
	}
	return gpus
}

func TestEventsComeInOrder(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	e := listen(t, c)
	eventually(t, "the worker to wait", s.listening(t, 1))
	want(t, "watched", []string{pciOf(0), pciOf(1)}, s.watched(t))
	var xids []int
	for i := range 100 {
		s.tell(t, nvml.Event{Type: nvml.EventXid, PCI: pciOf(i % 2), Xid: i})
		xids = append(xids, i)
	}
	eventually(t, "all events", func() bool { return len(e.heard()) == 100 })
	want(t, "events", xids, e.heard())
	if !c.Stats().Events {
		t.Error("stats do not say that events are listened to")
	}
	e.cancel()
	if err := e.end(t); err != nil {
		t.Errorf("events: %v, want nil on cancel", err)
	}
	eventually(t, "the worker to be gone", func() bool { return s.alive(t) == 0 })
	if c.Stats().Events {
		t.Error("stats say that events are listened to")
	}
}

func TestStreamBreaksWithTheCause(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		silence    time.Duration
		want       string
	}{
		"the worker dies":      {"die-events", "", 0, "exit status 127"},
		"a GPU is lost":        {"fail-events", "lost", 0, "wait: lost"},
		"the driver is gone":   {"fail-events", "renewed", 0, "wait: renewed"},
		"nonsense":             {"tell", "Segmentation fault\n", 0, "no answer"},
		"no heartbeat":         {"quiet", "", 500 * time.Millisecond, "no heartbeat of worker"},
		"another driver there": {"load", "570.195.03@2", 0, "unloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, 1)
			c := newClient(t, s, func(o *client.Options) { o.Silence = test.silence })
			e := listen(t, c)
			eventually(t, "the worker to wait", s.listening(t, 1))
			s.put(t, test.text, test.file)
			_, _ = c.Inventory(t.Context()) // sees another driver
			if err := e.end(t); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("events: %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestStreamThatBreaksIsInTheLogOnceAndThatItIsBack(t *testing.T) {
	s := newScript(t, 1)
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) { logs = observed(o, zap.InfoLevel) })
	s.put(t, "no-driver", "fail", "open")
	if err := listen(t, c).end(t); !errors.Is(err, nvml.ErrNoDriver) {
		t.Fatal(err)
	}
	s.take(t, "fail", "open")
	s.put(t, "lost", "fail", "events")
	for range 3 {
		if err := listen(t, c).end(t); !errors.Is(err, nvml.ErrLost) {
			t.Fatal(err)
		}
	}
	s.take(t, "fail", "events")
	listen(t, c)
	eventually(t, "the worker to wait", s.listening(t, 4))
	eventually(t, "the stream to be up", func() bool { return len(messages(logs)) > 1 })
	want(t, "log", []string{"driver events are not heard", "driver events are heard again"}, messages(logs))
}

func TestSilentStreamIsNotFollowedByAnother(t *testing.T) {
	s := newScript(t, 1)
	c := newClient(t, s, func(o *client.Options) { o.Silence = 300 * time.Millisecond })
	s.put(t, "", "quiet")
	if err := listen(t, c).end(t); !errors.Is(err, nvml.ErrTimeout) {
		t.Fatalf("events: %v, want %v", err, nvml.ErrTimeout)
	}
	if err := listen(t, c).end(t); !errors.Is(err, nvml.ErrTimeout) {
		t.Fatalf("events again: %v, want %v", err, nvml.ErrTimeout)
	}
	want(t, "workers", uint64(1), c.Stats().Started)
	mustRead(t, c, 0) // is no GPU's fault

	s.take(t, "quiet")
	eventually(t, "the silent worker to speak and be ended", func() bool { return s.alive(t) == 1 })
	listen(t, c)
	eventually(t, "another worker to wait", s.listening(t, 2))
	want(t, "killed", uint64(0), c.Stats().Killed)
}

func TestGPUThatHangsAsItIsWatchedIsLeftOutUntilItComesBack(t *testing.T) {
	s := newScript(t, 3)
	c := newClient(t, s, func(o *client.Options) { o.Deadline = 500 * time.Millisecond })
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(t, "", "hang", "watch", pciOf(1))
	e := listen(t, c)
	eventually(t, "a worker to wait", s.listening(t, 1))
	want(t, "watched", []string{pciOf(0), pciOf(1), pciOf(0), pciOf(2)}, s.watched(t))
	if _, err := c.Readings(t.Context(), pciOf(1)); !errors.Is(err, nvml.ErrTimeout) {
		t.Errorf("readings of it: %v, want %v", err, nvml.ErrTimeout)
	}
	s.tell(t, nvml.Event{Type: nvml.EventXid, Xid: 1})
	eventually(t, "the event", func() bool { return slices.Equal(e.heard(), []int{1}) })

	s.take(t, "hang", "watch", pciOf(1))
	eventually(t, "another worker to wait", s.listening(t, 2))
	want(t, "watched", []string{pciOf(0), pciOf(1), pciOf(2)}, s.watched(t)[4:])
	eventually(t, "the first to be ended", func() bool { return s.alive(t) == 2 }) // with that for questions
	want(t, "killed", uint64(0), c.Stats().Killed)
	select {
	case err := <-e.ended:
		t.Errorf("events have ended: %v", err)
	default:
	}
}

func TestNewGPUIsWatchedWithoutLossOfEvents(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	e := listen(t, c)
	eventually(t, "a worker to wait", s.listening(t, 1))
	stop, told := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				told <- n
				return
			case <-time.After(time.Millisecond):
				s.tell(t, nvml.Event{Type: nvml.EventXid, Xid: n})
			}
		}
	}()
	s.setGPUs(t, 3)
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another worker to wait", s.listening(t, 2))
	eventually(t, "the first to be ended", func() bool { return s.alive(t) == 2 }) // with that for questions
	close(stop)
	n := <-told
	var all []int
	for i := range n {
		all = append(all, i)
	}
	eventually(t, "every event", func() bool {
		heard := e.heard()
		slices.Sort(heard)
		return slices.Equal(slices.Compact(heard), all)
	})
}

func TestGPUThatCannotBeWatchedHidesNoOther(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	s.put(t, "lost", "fail", "watch", pciOf(0))
	e := listen(t, c)
	eventually(t, "a worker to wait", s.listening(t, 1))
	s.tell(t, nvml.Event{Type: nvml.EventXid, Xid: 31})
	eventually(t, "the event", func() bool { return slices.Equal(e.heard(), []int{31}) })
	if _, err := c.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, 1)
	want(t, "tries", []string{pciOf(0), pciOf(1)}, s.watched(t))
}

func TestReleaseEndsAllThatAnswer(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	mustRead(t, c, 0)
	e := listen(t, c)
	eventually(t, "a worker to wait", s.listening(t, 1))
	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, "workers", 0, s.alive(t))
	if err := e.end(t); !errors.Is(err, nvml.ErrPaused) {
		t.Errorf("events: %v, want %v", err, nvml.ErrPaused)
	}
	mustRead(t, c, 0)
	want(t, "stats", client.Stats{Started: 3, Stuck: map[string]time.Time{}}, c.Stats())
}

func TestReleaseWaitsForWhatIsOutAndNamesWhatStaysOut(t *testing.T) {
	s := newScript(t, 3)
	c := newClient(t, s, func(o *client.Options) { o.Deadline, o.Patience = time.Second, 50*time.Millisecond })
	mustRead(t, c, 2)
	s.put(t, "", "hang", "readings", pciOf(2))
	var out sync.WaitGroup
	out.Go(func() {
		if _, err := c.Readings(t.Context(), pciOf(2)); !errors.Is(err, nvml.ErrTimeout) {
			t.Errorf("hung call: %v", err)
		}
	})
	eventually(t, "the call to be out", func() bool { return len(s.asked(t)) == 3 })
	mustRead(t, c, 1)
	released := make(chan error, 1)
	go func() { released <- c.Release(t.Context()) }()
	eventually(t, "calls to be refused", func() bool {
		_, err := c.Readings(t.Context(), pciOf(1))
		return errors.Is(err, nvml.ErrPaused)
	})
	out.Wait()
	holder := fmt.Sprintf("release the driver: %v: held by process %d (readings %s)", nvml.ErrTimeout, s.pids(t)[0], pciOf(2))
	if err := <-released; !errors.Is(err, nvml.ErrTimeout) || err.Error() != holder {
		t.Errorf("release: %v, want %s", err, holder)
	}
	want(t, "workers", 1, s.alive(t))
	want(t, "killed", uint64(0), c.Stats().Killed)

	// One that comes back while all is released is not kept.
	s.take(t, "hang", "readings", pciOf(2))
	eventually(t, "the stuck worker to be ended", func() bool { return s.alive(t) == 0 })
	if err := c.Release(t.Context()); err != nil {
		t.Errorf("release again: %v", err)
	}
}

func TestCloseWaitsForNothing(t *testing.T) {
	s := newScript(t, 2)
	s.put(t, "", "deaf")
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) {
		o.Deadline, o.Patience = 500*time.Millisecond, 50*time.Millisecond
		logs = observed(o, zap.InfoLevel)
	})
	mustRead(t, c, 0)
	s.put(t, "", "hang", "readings", pciOf(0))
	if _, err := c.Readings(t.Context(), pciOf(0)); !errors.Is(err, nvml.ErrTimeout) {
		t.Fatal(err)
	}
	mustRead(t, c, 1)
	e := listen(t, c)
	eventually(t, "a worker to wait", s.listening(t, 1))
	began := time.Now()
	c.Close()
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("close took %s", took)
	}
	eventually(t, "all workers to be gone", func() bool { return s.alive(t) == 0 })
	if told := logs.FilterMessageSnippet("asked again").All(); len(told) > 0 {
		t.Errorf("log has %v", told)
	}
	if err := e.end(t); err == nil {
		t.Error("the stream ended without an error")
	}
	if _, err := c.Readings(t.Context(), pciOf(1)); err == nil || errors.Is(err, nvml.ErrTimeout) {
		t.Errorf("readings of a closed client: %v", err)
	}
	c.Close()
}

func TestWorkersHaveNothingOfEachOther(t *testing.T) {
	s := newScript(t, 2)
	c := newClient(t, s, nil)
	own := pipes(t, os.Getpid()) // whatever this test was started with
	mustRead(t, c, 0)
	listen(t, c)
	eventually(t, "a worker to wait", s.listening(t, 1))
	pids := s.pids(t)
	second := pipes(t, pids[1])
	for _, pipe := range pipes(t, pids[0]) {
		if slices.Contains(second, pipe) && !slices.Contains(own, pipe) {
			t.Errorf("%s is that of two workers", pipe)
		}
	}
}

func pipes(t *testing.T, pid int) (names []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if to, _ := os.Readlink(dir + "/" + entry.Name()); strings.HasPrefix(to, "pipe:") {
			names = append(names, to)
		}
	}
	return names
}
