package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"gpuvet.dev/internal/e2e/kube"
)

func TestNodeRestartKeepsFault(t *testing.T) {
	t.Parallel()
	s := newSubject(t, "restart")
	s.lose(t, 0)
	s.awaitFenced(t, 0)
	s.awaitEvents(t, "GPULost", 1)
	seen := cluster.WatchNode(t, s.node)
	for range 2 {
		s.stop(t)
		s.Restart(t)
		s.AwaitReady(t)
		s.awaitXids(t, 0, 79, 1)
	}
	// Past the time that a start is given until its Unknown is told.
	pause(t.Context(), 18*time.Second)
	for _, version := range seen.Versions(t) {
		if err := fenced(version.Node, s.fleet[0]); err != nil {
			t.Errorf("the fence had a hole at %s: %v", version.At.Format(time.TimeOnly), err)
		}
	}
	s.lose(t, 1)
	s.awaitFenced(t, 1)
	s.awaitXids(t, 0, 79, 1)
	s.awaitXids(t, 1, 79, 1)
	s.awaitEvents(t, "GPULost", 2) // one per GPU
	s.recover(t)
	s.awaitEvents(t, "GPULostCleared", 2)
	s.awaitEvents(t, "GPULost", 2)
}

func TestNodeGPUThatWentWhileNobodyLookedIsLost(t *testing.T) {
	t.Parallel()
	s := newSubject(t, "went")
	s.stop(t)
	s.Options.Scenario = s.fleet[:2].Scenario(t)
	s.Restart(t)
	s.awaitFenced(t, 2)
	s.awaitEvents(t, "GPULost", 1)
}

// The API server is the cluster's, so nothing else runs meanwhile.
func TestNodeAPIServerGone(t *testing.T) {
	for _, tt := range []struct {
		name         string
		stop, resume func(context.Context) error
	}{
		{"killed", func(context.Context) error { cluster.StopAPIServer(); return nil }, cluster.StartAPIServer},
		{"hanging", func(context.Context) error { return cluster.FreezeAPIServer() }, func(context.Context) error { return cluster.ThawAPIServer() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSubject(t, "outage-"+tt.name)
			t.Cleanup(func() {
				ctx := context.WithoutCancel(t.Context())
				if err := errors.Join(tt.resume(ctx), cluster.WakeControllers(ctx)); err != nil {
					t.Error(err)
				}
			})
			if err := tt.stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			over := time.Now().Add(20 * time.Second)
			pause(t.Context(), 5*time.Second)
			s.lose(t, 0)
			lost := time.Now()
			s.awaitXids(t, 0, 79, 1)
			detected := time.Since(lost)
			if limit := 2 * time.Second; detected > limit {
				t.Errorf("the Xid was in the metrics after %s, want %s whatever the API server does", detected, limit)
			}
			kube.Eventually(t, soon, func() error { return s.isHindered(t) })
			pause(t.Context(), time.Until(over))
			if err := tt.resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			returned := time.Now()
			kube.Eventually(t, time.Minute, func() error { return fenced(read(t, s.node), s.fleet[0]) })
			applied := time.Since(returned)
			if limit := 11 * time.Second; applied > limit {
				t.Errorf("the fence came %s after the API server's return, want %s", applied, limit)
			}
			t.Logf("detected after %s, applied %s after the return", detected, applied)
			s.awaitEvents(t, "GPULost", 1)
		})
	}
}
