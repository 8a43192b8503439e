package client_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/nvml/client"
)

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

func TestEachOfTheFirstDeathsIsInTheLog(t *testing.T) {
	s := newScript(t, 1)
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) { logs = observed(o, zap.InfoLevel) })
	var died []string
	for i := range 3 {
		eventually(t, "readings by another worker", func() bool {
			_, err := c.Readings(t.Context(), pciOf(0))
			return err == nil && len(s.pids(t)) == i+1
		})
		killWorker(t, s.pids(t)[i])
		died = append(died, "worker died")
	}
	eventually(t, "the third to be told", func() bool { return len(messages(logs)) >= 3 })
	want(t, "log", died, messages(logs))
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

func TestWorkerThatNeverGreetsIsKilledAndToldOnce(t *testing.T) {
	s := newScript(t, 1)
	s.put(t, "", "mute")
	s.put(t, "", "deaf")
	var logs *observer.ObservedLogs
	c := newClient(t, s, func(o *client.Options) {
		o.StartDeadline = 300 * time.Millisecond
		logs = observed(o, zap.InfoLevel)
	})
	if _, err := c.Inventory(t.Context()); err == nil || err.Error() != "worker has not greeted within 300ms" {
		t.Fatalf("inventory: %v, want that the worker has not greeted", err)
	}
	want(t, "killed at once", uint64(1), c.Stats().Killed)
	eventually(t, "the worker to be gone", func() bool { return c.Stats().Died == 1 })
	want(t, "log", []string{"worker given up"}, messages(logs))
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
