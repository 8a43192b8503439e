package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

func (w *world) want(what string, want, got any) {
	w.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

func (w *world) wantStatus(status corev1.ConditionStatus, reason string) {
	w.Helper()
	c := w.api.condition()
	if c.Status != status || c.Reason != reason {
		w.Errorf("condition is %s %s (%s), want %s %s", c.Status, c.Reason, c.Message, status, reason)
	}
}

func TestHealthyNodeWritesItsConditionOnceAndThenHeartbeats(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.look(8)
		w.goodNews()
		w.want("writes", []string{"status"}, w.api.written())
		w.wantStatus("True", "GPUsHealthy")
		began := w.api.condition().LastTransitionTime
		var beats []time.Duration
		last := time.Now()
		for len(beats) < 20 {
			pass(time.Second)
			if writes := w.api.written(); len(writes) > 0 {
				w.want("writes", []string{"status"}, writes)
				beats = append(beats, time.Since(last))
				last = time.Now()
			}
		}
		for _, b := range beats {
			if b < 4*time.Minute+29*time.Second || b > 5*time.Minute+31*time.Second {
				t.Errorf("a heartbeat after %v, want 5 min within 10 %%", b)
			}
		}
		if slices.Max(beats)-slices.Min(beats) < 5*time.Second {
			t.Errorf("heartbeats after %v, want jitter", beats)
		}
		if got := w.api.condition(); !got.LastTransitionTime.Equal(&began) || time.Since(got.LastHeartbeatTime.Time) > 6*time.Minute {
			t.Errorf("heartbeat %v, transition %v, want the first fresh and the second still %v", got.LastHeartbeatTime, got.LastTransitionTime, began)
		}
		w.wantTaints()
	})
}

func TestFaultIsWrittenAtOnceAndItsSiblingsTogether(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(8)
		w.xid(3, 79)
		settle()
		w.want("first writes", []string{"taint", "status"}, w.api.written())
		w.wantTaints(lost)
		w.wantStatus("False", "GPULost")
		for i := range 3 {
			w.xid(4+i, 79)
			pass(100 * time.Millisecond)
		}
		w.want("writes within the second", []string(nil), w.api.written())
		pass(time.Second)
		w.want("writes after it", []string{"status"}, w.api.written())
		if m := w.api.condition().Message; strings.Count(m, "GPULost") != 4 {
			t.Errorf("message is %q, want four GPUs", m)
		}
		if seq, _, err := w.output.Progress(); err != nil || seq != w.detector.Snapshot().Seq {
			t.Errorf("Progress = %d, %v, want %d", seq, err, w.detector.Snapshot().Seq)
		}
	})
}

func TestRecoveryRemovesOnlyOurTaint(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(0, 79)
		settle()
		w.api.change(func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "late", Effect: "NoSchedule"})
		})
		w.clear(0)
		w.goodNews()
		w.wantTaints("late:NoSchedule")
		w.wantStatus("True", "GPUsHealthy")
		if known := w.detector.Snapshot().Applied.Taint; known != nil {
			t.Errorf("state still knows %+v", known)
		}
	})
}

func TestApplicationFaultTaintsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(0, 31)
		pass(time.Minute)
		w.want("writes", []string(nil), w.api.written())
	})
}

func TestConflictKeepsTheOtherWritersEntry(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.api.set(func() {
			met := 0
			w.api.before = func(call string) {
				if call == "taint" && met < 2 {
					met++
					w.api.change(func(n *corev1.Node) {
						n.Spec.Taints = slices.Insert(n.Spec.Taints, 0, corev1.Taint{Key: fmt.Sprintf("other-%d", met), Effect: "NoSchedule"})
					})
				}
			}
		})
		w.xid(0, 79)
		settle()
		w.want("taints", []string{"other-2:NoSchedule", "other-1:NoSchedule", "dedicated=ml:NoSchedule", "zone:NoExecute", lost}, w.api.taints())
		w.want("writes", []string{"taint", "status"}, w.api.written())
	})
}

func TestForeignTaintIsLeftAloneAndReportedOnce(t *testing.T) {
	foreign := corev1.Taint{Key: TaintKey, Value: "maintenance", Effect: "NoSchedule"}
	inWorld(t, func(w *world) {
		w.api.change(func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, foreign) })
		w.begin(2)
		w.xid(0, 79)
		pass(time.Minute)
		w.wantTaints("gpuvet.dev/unhealthy=maintenance:NoSchedule")
		w.wantStatus("False", "GPULost")
		if _, _, err := w.output.Progress(); !errors.Is(err, ErrForeignTaint) || !strings.Contains(err.Error(), "maintenance") {
			t.Errorf("Progress error = %v, want the foreign taint", err)
		}
		if n := w.logs.FilterMessageSnippet("not ours").Len(); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
		var reasons []string
		for _, e := range w.api.told() {
			reasons = append(reasons, e.Reason)
		}
		w.want("events", []string{"ForeignTaint", "GPULost"}, reasons)

		// Recovery is none of the stranger's business.
		w.clear(0)
		pass(time.Minute)
		w.wantTaints("gpuvet.dev/unhealthy=maintenance:NoSchedule")
		w.wantStatus("True", "GPUsHealthy")

		// Once it is gone, ours is written at the next fault.
		w.xid(1, 79)
		pass(time.Minute)
		w.api.change(func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[:2] })
		pass(time.Second)
		w.wantTaints(lost)
		if _, _, err := w.output.Progress(); err != nil {
			t.Errorf("Progress error = %v, want none", err)
		}
	})
}

func TestRemovedTaintIsPutBackWithinASecond(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(0, 79)
		settle()
		w.api.written()
		w.api.change(func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[:2] })
		pass(time.Second)
		w.wantTaints(lost)
		w.want("writes", []string{"taint"}, w.api.written())
		pass(time.Minute)
		w.api.change(func(n *corev1.Node) {
			n.Status.Conditions = slices.DeleteFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == ConditionType })
		})
		pass(time.Second)
		w.wantStatus("False", "GPULost")

		// Against somebody who will not give up, the budget holds.
		w.api.written()
		for range 600 {
			w.api.change(func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[:2] })
			pass(time.Second)
		}
		if n := len(w.api.written()); n > 65 || n < 50 {
			t.Errorf("put back %d times in 10 min, want about 60", n)
		}
	})
}

func TestOldNewsFromTheWatchChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		var old []byte
		w.api.set(func() { old = watchEvent("MODIFIED", w.api.node) })
		w.xid(0, 79)
		settle()
		w.api.written()
		w.api.set(func() {
			w.api.calls = map[string]int{}
			for c := range w.api.watchers {
				c <- old
			}
		})
		pass(time.Minute)
		w.want("calls", map[string]int{}, w.api.calls)
	})
}

func TestWorseReasonReplacesTheValueInPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(0, 48)
		settle()
		w.wantTaints("gpuvet.dev/unhealthy=UncorrectableMemory:NoSchedule")
		w.api.change(func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "late", Effect: "NoSchedule"})
		})
		w.xid(1, 79)
		pass(2 * time.Second)
		w.wantTaints(lost, "late:NoSchedule")
		known := w.detector.Snapshot().Applied.Taint
		if known == nil || !known.Accepted || known.Value != "GPULost" || len(known.Earlier) != 0 {
			t.Errorf("state knows %+v, want the accepted GPULost alone", known)
		}
	})
}

func TestFullDiskKeepsTheTaintUnwrittenAndTheConditionTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		pass(2 * time.Second)
		w.broken.Store(true)
		w.xid(0, 79)
		pass(30 * time.Second)
		w.wantTaints()
		w.wantStatus("False", "GPULost")
		if _, _, err := w.output.Progress(); !errors.Is(err, errNotSaved) {
			t.Errorf("Progress error = %v, want that nothing is saved", err)
		}
		w.broken.Store(false)
		pass(10 * time.Second)
		w.wantTaints(lost)
		w.kill()
		w.start()
		w.look(2)
		w.clear(0)
		pass(20 * time.Second)
		w.wantTaints()
	})
}

func TestFaultDuringAnOutageIsWrittenWithinTenSecondsOfItsEnd(t *testing.T) {
	for _, outage := range []time.Duration{500 * time.Millisecond, 20 * time.Second, 11 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.begin(2)
				w.api.outage(true)
				w.xid(0, 79)
				pass(outage)
				if _, _, err := w.output.Progress(); err == nil {
					t.Error("Progress tells of no trouble")
				}
				w.api.outage(false)
				pass(10 * time.Second)
				w.wantTaints(lost)
				w.wantStatus("False", "GPULost")
				if n := w.logs.FilterMessageSnippet("writing to the node is delayed").Len(); n != 1 {
					t.Errorf("logged %d times, want once", n)
				}
			})
		})
	}
}

func TestHangingServerDelaysOnlyThisOutput(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.api.set(func() { w.api.hang = true })
		w.xid(0, 79)
		pass(35 * time.Second)
		if g, ok := w.detector.Snapshot().GPU(pci(0)); !ok || g.Status != detector.Unhealthy {
			t.Error("detection waited")
		}
		w.api.set(func() { w.api.hang = false })
		pass(10 * time.Second)
		w.wantTaints(lost)
		w.wantStatus("False", "GPULost")
	})
}

func TestMissingRightIsSaidOnceAndTriedAgain(t *testing.T) {
	for _, c := range []struct {
		call   string
		status int
		says   string
		other  string // what is written all the same
	}{
		{"taint", 403, "deploy/rbac", "status"},
		{"status", 403, "deploy/rbac", "taint"},
		{"taint", 404, "--node-name", "status"},
	} {
		t.Run(fmt.Sprintf("%s %d", c.call, c.status), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.begin(2)
				w.api.set(func() {
					w.api.refuse = func(call string) int {
						if call == c.call {
							return c.status
						}
						return 0
					}
					w.api.calls = map[string]int{}
				})
				w.xid(0, 79)
				pass(5 * time.Minute)
				w.want("writes", []string{c.other}, w.api.written())
				if n := w.api.calls[c.call]; n < 30 || n > 80 {
					t.Errorf("tried %d times in 5 min, want a pause of at most 9 s between them", n)
				}
				said := w.logs.FilterMessageSnippet("writing to the node is delayed")
				if said.Len() != 1 || !strings.Contains(said.All()[0].ContextMap()["advice"].(string), c.says) {
					t.Errorf("log has %v, want one line that names %s", said.All(), c.says)
				}
				w.api.set(func() { w.api.refuse = nil })
				pass(10 * time.Second)
				w.wantTaints(lost)
				w.wantStatus("False", "GPULost")
			})
		})
	}
}

func TestFlappingGPUStaysWithinTheBudgetAndIsNeverLateWithBadNews(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		for range 300 { // 10 minutes
			w.xid(0, 79)
			pass(time.Second + 10*time.Millisecond)
			w.wantTaints(lost)
			w.clear(0)
			pass(time.Second)
		}
		if n := len(w.api.written()); n > 6*10+4+3 {
			t.Errorf("%d writes in 10 min, want at most 6 per minute and a burst", n)
		}
		pass(time.Minute)
		w.wantTaints()
		w.wantStatus("True", "GPUsHealthy")
	})
}

func TestRestartOfTheDaemonWritesNothing(t *testing.T) {
	for _, faulty := range []bool{false, true} {
		t.Run(fmt.Sprintf("faulty=%v", faulty), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.begin(2)
				if faulty {
					w.xid(0, 79)
				}
				pass(5 * time.Second)
				w.kill()
				w.api.written()
				w.start()
				w.emit(detector.KindBoot, -1, nil)
				pass(3 * time.Second)
				w.look(2)
				pass(20 * time.Second)
				w.want("writes", []string(nil), w.api.written())
			})
		})
	}
}

func TestUnknownIsToldOnceTheStartIsOver(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		pass(16 * time.Second)
		w.wantStatus("Unknown", "Starting")
		w.look(2)
		w.goodNews()
		w.wantStatus("True", "GPUsHealthy")
		w.emit(detector.KindStale, 1, nil)
		settle()
		w.wantStatus("Unknown", "ReadingsStale")
		w.emit(detector.KindDriverMissing, -1, map[string]string{"cause": "libnvidia-ml.so.1 is not there"})
		pass(time.Minute)
		w.wantStatus("Unknown", "DriverMissing")
	})
}

func TestDeletedAndRecreatedNodeIsWrittenAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.xid(0, 79)
		settle()
		var old *corev1.Node
		w.api.set(func() {
			old, w.api.node = w.api.node, nil
			for c := range w.api.watchers {
				c <- watchEvent("DELETED", old)
			}
		})
		pass(30 * time.Second)
		w.api.set(func() {
			w.api.node = &corev1.Node{TypeMeta: old.TypeMeta, ObjectMeta: metav1.ObjectMeta{Name: nodeName, UID: "v"}}
			w.api.bump()
		})
		pass(10 * time.Second)
		w.want("taints", []string{lost}, w.api.taints())
		w.wantStatus("False", "GPULost")
	})
}

func TestDryRunWritesNothingAndSaysWhat(t *testing.T) {
	inWorld(t, func(w *world) {
		w.dry = true
		w.start()
		w.look(2)
		w.xid(0, 79)
		pass(10 * time.Minute)
		w.want("calls", map[string]int{}, w.api.calls)
		said := w.logs.FilterMessageSnippet("would write").All()
		if len(said) == 0 || said[len(said)-1].ContextMap()["taint"] != lost {
			t.Errorf("log has %v, want the taint", said)
		}
		if w.logs.FilterMessageSnippet("would create event").Len() != 1 {
			t.Error("log has no event")
		}
		if w.detector.Snapshot().Applied.Taint != nil {
			t.Error("a dry run noted a taint")
		}
	})
}

// Who else gives out the GPUs is told at once, and not forgotten while the API server is
// away.
func TestDevicePluginIsNews(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.api.change(func(n *corev1.Node) {
			n.Status.Allocatable = corev1.ResourceList{pluginResource: resource.MustParse("2")}
		})
		pass(time.Second)
		if n, known := w.output.PluginGPUs(); n != 2 || !known || w.plugged.Load() != 2 {
			t.Errorf("%d GPUs of a plugin, told %d times; want 2, once more than that there are none", n, w.plugged.Load())
		}
		w.api.outage(true)
		pass(20 * time.Second)
		if n, known := w.output.PluginGPUs(); n != 2 || !known {
			t.Errorf("%d GPUs of a plugin while the API server is away, want 2 as before", n)
		}
		w.api.outage(false)
		w.api.change(func(n *corev1.Node) { n.Status.Allocatable = nil })
		pass(20 * time.Second)
		if n, known := w.output.PluginGPUs(); n != 0 || !known || w.plugged.Load() != 3 {
			t.Errorf("%d GPUs of a plugin, told %d times; want none, three times", n, w.plugged.Load())
		}
	})
}
