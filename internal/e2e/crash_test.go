package e2e

import (
	"slices"
	"strings"
	"testing"
)

// fence is whether our taint is on the node when the daemon has died.
type fence int

const (
	notYet fence = iota
	there
	either // taint and events are written side by side
)

// At each point of the way from the kernel log to the node the daemon kills
// itself. The next one counts the Xid once, fences once, tells it once, and
// takes its own fence away when the fault is over.
func TestNodeCrash(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		point string
		// down: the Xid comes while no daemon runs, so that a start meets it. Boot
		// and Policy, its own events, are folded before it.
		down  bool
		kept  bool // the Xid is in the trail when the daemon has died
		fence fence
	}{
		{point: "kmsg-read"},
		{point: "kmsg-read", down: true},
		{point: "folded:3", down: true},
		{point: "trail-appended:3", down: true, kept: true},
		{point: "state-written", down: true, kept: true},
		{point: "state-kept", down: true, kept: true},
		{point: "state-renamed", down: true, kept: true},
		{point: "taint-intended", kept: true},
		{point: "taint-patched", kept: true, fence: there},
		{point: "taint-patched", down: true, kept: true, fence: there},
		{point: "taint-applied", kept: true, fence: there},
		{point: "condition-patched", kept: true, fence: there},
		{point: "event-created", kept: true, fence: either},
	} {
		name, _, numbered := strings.Cut(tt.point, ":")
		if tt.down {
			name += "-at-start"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSubject(t, "crash-"+name)
			s.stop(t)

			s.Options.FaultPoint = tt.point
			if tt.down {
				s.lose(t, 0)
				s.Restart(t)
			} else {
				s.Restart(t)
				s.AwaitReady(t)
				s.lose(t, 0)
			}
			if code := s.Wait(t); code != -1 {
				t.Fatalf("the daemon ended with %d, want it killed at %s", code, tt.point)
			}
			// That it died on this way, and not on another that passes the point too.
			trail := s.Trail(t)
			if kept := slices.Contains(trail, "Xid"); kept != tt.kept {
				t.Errorf("killed at %s, the Xid is in the trail: %v, want %v", tt.point, kept, tt.kept)
			}
			if last := trail[len(trail)-1]; numbered && !tt.kept && last != "Policy" {
				t.Errorf("killed at %s behind %s, want it behind Policy", tt.point, last)
			}
			if tainted := len(ownTaints(cluster.Node(t, s.node))) == 1; tt.fence != either && tainted != (tt.fence == there) {
				t.Errorf("killed at %s, the node is tainted: %v, want %v", tt.point, tainted, !tainted)
			}

			s.Options.FaultPoint = ""
			s.Restart(t)
			s.awaitFenced(t, 0)
			s.awaitXids(t, 0, 79, 1)
			s.awaitEvents(t, "GPULost", 1)

			s.recover(t)
			s.awaitEvents(t, "GPULostCleared", 1)
			s.awaitEvents(t, "GPULost", 1)
			s.awaitXids(t, 0, 79, 1)
		})
	}
}
