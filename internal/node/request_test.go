package node

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/detector"
)

// annotate sets the annotation, or with an empty value takes it away.
func (w *world) annotate(value string) {
	w.api.change(func(n *corev1.Node) {
		delete(n.Annotations, PauseAnnotation)
		if value != "" {
			n.Annotations = map[string]string{PauseAnnotation: value, "other": "x"}
		}
	})
	settle()
}

// upgrade sets the label of the GPU Operator.
func (w *world) upgrade(state string) {
	w.api.change(func(n *corev1.Node) { n.Labels = map[string]string{upgradeLabel: state} })
	settle()
}

// paused checks who has paused, and for how long it goes on; empty: nobody.
func (w *world) paused(by string, left time.Duration) {
	w.Helper()
	p := w.detector.Snapshot().Pause
	switch {
	case p == nil && by == "":
	case p == nil:
		w.Errorf("not paused, want it by %s", by)
	case p.By != by:
		w.Errorf("paused by %s, want %q", p.By, by)
	case (time.Until(p.Until) - left).Abs() > time.Second:
		w.Errorf("paused for another %s, want %s", time.Until(p.Until), left)
	}
}

func TestAnnotationPausesFromWhenItWasSeen(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.annotate("10m")
		w.paused(detector.ByAnnotation, 10*time.Minute)
		c := w.api.condition()
		until := w.detector.Snapshot().Pause.Until.UTC().Format(time.RFC3339)
		want := corev1.NodeCondition{
			Type: ConditionType, Status: "Unknown", Reason: "Paused",
			Message: "not monitored: paused by the node's annotation until " + until,
		}
		if diff := cmp.Diff(want, c, cmpopts.IgnoreFields(corev1.NodeCondition{}, "LastHeartbeatTime", "LastTransitionTime")); diff != "" {
			t.Errorf("condition (-want +got):\n%s", diff)
		}
		w.wantTaints()
		pass(3 * time.Minute)
		w.kill()
		w.start()
		w.look(2)
		settle()
		w.paused(detector.ByAnnotation, 7*time.Minute)
		pass(10 * time.Minute)
		w.paused("", 0)
		w.look(2)
		w.goodNews()
		if c := w.api.condition(); c.Status != "True" {
			t.Errorf("condition after the pause: %+v", c)
		}
		w.annotate("10m") // the same value again
		w.paused("", 0)
		w.kill()
		w.start()
		w.look(2)
		settle()
		w.paused("", 0)
		w.annotate("")
		w.annotate("10m")
		w.paused(detector.ByAnnotation, 10*time.Minute)
	})
}

func TestAnnotationThatIsTakenAwayOrChanged(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.annotate("10m")
		pass(time.Minute)
		w.annotate("20m")
		w.paused(detector.ByAnnotation, 20*time.Minute)
		w.annotate("")
		w.paused("", 0)
		w.submit(detector.KindPaused, map[string]string{"for": "1h", "by": detector.ByHand})
		w.annotate("")
		w.paused(detector.ByHand, time.Hour)
	})
}

func TestBadAnnotationIsReportedOnceAndChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.annotate("10m")
		for _, bad := range []string{"soon", "0s", "48h", strings.Repeat("9", 1000)} {
			w.annotate(bad)
			w.paused(detector.ByAnnotation, 10*time.Minute)
			want := `annotation gpuvet.dev/pause: "` + bad[:min(len(bad), maxRequest)] + `": expected a duration from 1s to 24h, such as 10m`
			if got := w.detector.Snapshot().Requests.Refused[detector.ByAnnotation]; got != want {
				t.Errorf("refused: %s, want %s", got, want)
			}
		}
		var refused []string
		for _, e := range w.api.told() {
			if e.Reason == "PauseRefused" && e.Type == "Warning" {
				refused = append(refused, e.Message)
			}
		}
		if len(refused) != 4 || w.logs.FilterMessage("what the node asks for is refused").Len() != 4 {
			t.Errorf("events: %q, logs: %v", refused, w.logs.All())
		}
		w.annotate("")
		w.paused("", 0)
		if got := w.detector.Snapshot().Requests.Refusals(); len(got) > 0 {
			t.Errorf("still refused: %s", got)
		}
	})
}

// What is kept of it must be the same after it was on disk, or each start of the
// daemon would take it for another one.
func TestBadAnnotationThatIsCutIsNotReportedAgainAfterARestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.annotate("x" + strings.Repeat("é", maxRequest))
		if n := w.logs.FilterMessage("what the node asks for is refused").Len(); n != 1 {
			t.Errorf("refused %d times, want once", n)
		}
		w.kill()
		w.start() // with logs of its own
		w.look(1)
		settle()
		if n := w.logs.FilterMessage("what the node asks for is refused").Len(); n != 0 {
			t.Errorf("refused %d times after a restart, want none", n)
		}
	})
}

func TestDriverUpgradePausesWhileTheDriverIsUnloaded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		// In the order of the GPU Operator, in both of its modes.
		for _, step := range []struct {
			state  string
			paused bool
		}{
			{"upgrade-required", false},
			{"cordon-required", false},
			{"wait-for-jobs-required", false},
			{"pod-deletion-required", true},
			{"drain-required", true},
			{"pod-restart-required", true},
			{"validation-required", false},
			{"uncordon-required", false},
			{"upgrade-done", false},
			{"node-maintenance-required", false},
			{"post-maintenance-required", true},
			{"pod-restart-required", true},
			{"upgrade-failed", false},
			{"something-new", false},
		} {
			w.upgrade(step.state)
			t.Log(step.state)
			if step.paused {
				w.paused(detector.ByUpgrade, time.Hour)
			} else {
				w.paused("", 0)
			}
			pass(10 * time.Minute)
		}
	})
}

func TestForgottenUpgradeDoesNotBlindForEver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.upgrade("pod-restart-required")
		pass(time.Hour)
		w.paused("", 0)
		w.kill()
		w.start()
		w.look(1)
		pass(time.Hour)
		w.paused("", 0)
	})
}

func TestPauseAndItsEndAreToldAndFaultsStand(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(1, 79)
		settle()
		w.submit(detector.KindPaused, map[string]string{"for": "10m", "by": detector.ByHand, "author": "alice", "why": "reset"})
		w.goodNews()
		c := w.api.condition()
		if c.Status != "False" || !strings.HasPrefix(c.Message, "GPU 1 (") || !strings.Contains(c.Message, "; paused by hand (alice) until ") {
			t.Errorf("condition: %+v", c)
		}
		w.wantTaints(lost)
		w.submit(detector.KindResumed, map[string]string{"by": detector.ByHand, "author": "bob"})
		pass(3 * time.Second)
		var told []string
		for _, e := range w.api.told() {
			if e.Type == "Normal" {
				told = append(told, e.Reason+": "+e.Message)
			}
		}
		if len(told) != 2 || !strings.HasPrefix(told[0], "Paused: GPUs are not monitored: paused by hand (alice) until ") ||
			told[1] != "Resumed: GPUs are monitored again: resumed by hand (bob)" {
			t.Errorf("events: %q", told)
		}
	})
}

func TestPauseIsToldThoughTheDaemonHasJustStarted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.submit(detector.KindPaused, map[string]string{"for": "10m", "by": detector.ByHand})
		w.goodNews()
		w.kill()
		w.api.change(func(n *corev1.Node) { n.Status.Conditions = nil })
		w.start()
		w.emit(detector.KindBoot, -1, nil)
		settle()
		if c := w.api.condition(); c.Reason != "Paused" {
			t.Errorf("condition right after the start: %+v", c)
		}
	})
}

func TestRequestsAreHeardWhileWritingIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.api.set(func() {
			w.api.refuse = func(call string) int {
				if call == "status" || call == "taint" {
					return 403
				}
				return 0
			}
		})
		w.annotate("10m")
		w.paused(detector.ByAnnotation, 10*time.Minute)
	})
}

func (w *world) submit(kind detector.Kind, fields map[string]string) {
	w.Helper()
	if _, err := w.detector.Submit(w.Context(), detector.Event{Source: detector.SourceHand, Kind: kind, Fields: fields}); err != nil {
		w.Fatal(err)
	}
	settle()
}
