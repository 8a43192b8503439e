package dra

import (
	"errors"
	"os"
	"slices"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/kubelettest"
)

// watched are specs whose writes are counted, and which cannot be written at times.
type watched struct {
	Specs
	mu      sync.Mutex // guards what follows
	spoiled bool
	writes  []string
}

func (s *watched) Write(claim string, devices []cdi.Device, note string) (map[string][]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spoiled {
		return nil, errors.New("no CDI spec names it")
	}
	s.writes = append(s.writes, claim)
	return s.Specs.Write(claim, devices, note)
}

func (s *watched) spoil(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoiled = is
}

func (s *watched) wrote(t *testing.T, claims ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.writes, claims) {
		t.Errorf("written were specs of %v, want %v", s.writes, claims)
	}
	s.writes = nil
}

// watch has the writes of specs be watched from here on.
func (w *world) watch() *watched {
	s := &watched{Specs: w.plugin.o.Specs}
	w.plugin.o.Specs = s
	return s
}

func (w *world) removeSpec(uid string) {
	w.t.Helper()
	if err := os.Remove(w.path("cdi", "gpu.gpuvet.dev-claim_"+uid+".json")); err != nil {
		w.t.Fatal(err)
	}
}

func TestSpecThatSomebodyRemovedIsRestored(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		w.emit(found(2))
		w.allocate("train", "pod", nil, 0)
		w.allocate("half", "pod", nil, 1)
		w.allocate("good", "pod", nil, 2)
		if _, err := w.plugin.prepare(t.Context(), claim("good", "pod", 2)); err != nil {
			t.Fatal(err)
		}
		specs := w.watch()
		defer w.sweeping()()
		pass(sweepGrace)
		w.removeSpec("uid-train")
		pass(3 * sweepEvery)
		specs.wrote(t, "uid-train")
		if !w.spec(kubelettest.Claim{UID: "uid-train"}) {
			t.Error("it is missing still")
		}
	})
}

func TestSpecThatCouldNotBeRestoredIsTriedAgain(t *testing.T) {
	for name, there := range map[string]bool{"missing": false, "that of the daemon before": true} {
		t.Run(name, func(t *testing.T) {
			swept(t, func(t *testing.T, w *world) {
				t.Helper()
				w.allocate("train", "pod", nil, 0)
				w.allocate("half", "pod", nil, 1)
				if !there {
					w.removeSpec("uid-train")
				}
				log, lines := observer.New(zap.InfoLevel)
				w.plugin.o.Log = zap.New(log)
				specs := w.watch()
				specs.spoil(true)
				w.plugin.restore(t.Context())
				defer w.sweeping()()
				pass(3 * sweepEvery)
				if n := lines.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
					t.Errorf("%d lines say that it cannot be restored: %v", n, lines.All())
				}
				specs.spoil(false)
				pass(3 * sweepEvery)
				specs.wrote(t, "uid-train")
			})
		})
	}
}
