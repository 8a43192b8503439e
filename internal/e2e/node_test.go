package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// Untrusted code can raise these at will.
func TestNodeApplicationXidNeverTaints(t *testing.T) {
	s := newSubject(t, "application")
	seen := cluster.WatchNode(t, s.node)
	const rounds = 334
	for range rounds {
		daemon.KernelLog(t, s.fleet[0].Xid(31, "pid=7, name=agent, Ch 00000008, intr 00000000. MMU Fault"))
		daemon.KernelLog(t, s.fleet[0].Xid(13, "pid=7, name=agent, Graphics SM Warp Exception"))
		daemon.KernelLog(t, s.fleet[0].Xid(43, "pid=7, name=agent, Ch 00000008"))
	}
	// A line that was overwritten before the daemon could read it is counted as
	// lost, and so is any other line.
	kube.Eventually(t, soon, func() error {
		metrics := s.Metrics(t)
		lost, err := metrics.Value("gpuvet_kernel_log_lost_records_total")
		if err != nil {
			return err
		}
		var missing float64
		for _, code := range []string{"31", "13", "43"} {
			got, err := metrics.Value("gpuvet_gpu_xid_errors_total", "uuid", s.fleet[0].UUID, "xid", code)
			if err != nil {
				return err
			}
			if got > rounds {
				t.Fatalf("%v reports of Xid %s are counted, %d were written", got, code, rounds)
			}
			missing += rounds - got
		}
		if missing > lost {
			return fmt.Errorf("%v of %d reports are neither counted nor told as lost, which %v are", missing-lost, 3*rounds, lost)
		}
		return nil
	})
	pause(t.Context(), 3*time.Second) // longer than the daemon lets good news wait
	for _, version := range seen.Versions(t)[1:] {
		t.Errorf("the node was changed: %v, taints %v", kube.Condition(version.Node, ownCondition), version.Node.Spec.Taints)
	}
	if status, _ := s.Command(t, "status"); strings.Contains(status, "Unhealthy") {
		t.Errorf("a GPU is called unhealthy:\n%s", status)
	}
}

func TestNodeQuiet(t *testing.T) {
	t.Parallel()
	cluster.AddNode(t, "quiet")
	awaitQuiet(t, "quiet")
	seen := cluster.WatchNode(t, "quiet")
	s := start(t, daemon.Options{Node: "quiet"})
	s.awaitHealthy(t)
	pause(t.Context(), 20*time.Second)
	if versions := seen.Versions(t); len(versions) != 2 {
		t.Errorf("the node was written %d times, want once for its first condition", len(versions)-1)
	}
	// A write that changes nothing makes no version, and is a call all the same.
	if calls := s.calls(t, "patch node"); calls != 0 {
		t.Errorf("%v calls to patch the node, want none", calls)
	}
	if calls := s.calls(t, "patch node status"); calls != 1 {
		t.Errorf("%v calls to patch the node's status, want 1", calls)
	}
	if events := cluster.Events(t, "quiet", "gpuvet.dev"); len(events) > 0 {
		t.Errorf("events of a healthy node: %v", messages(events))
	}
}

// awaitQuiet waits until the controllers have done all they do to a new node.
func awaitQuiet(t *testing.T, node string) {
	t.Helper()
	version, since := "", time.Now()
	kube.Eventually(t, time.Minute, func() error {
		if now := cluster.Node(t, node).ResourceVersion; now != version {
			version, since = now, time.Now()
		}
		if time.Since(since) < 2*time.Second {
			return fmt.Errorf("node %s was changed lately", node)
		}
		return nil
	})
}

// calls is how many calls of one kind the daemon has made to the API server.
func (w watched) calls(t *testing.T, call string) uint64 {
	t.Helper()
	var n uint64
	for _, metric := range w.daemon.Metrics(t)["gpuvet_call_duration_seconds"].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetName() == "call" && label.GetValue() == call {
				n += metric.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}

func TestNodeDryRun(t *testing.T) {
	t.Parallel()
	cluster.AddNode(t, "dry-run")
	awaitQuiet(t, "dry-run")
	seen := cluster.WatchNode(t, "dry-run")
	s := start(t, daemon.Options{Node: "dry-run", Args: []string{"--dry-run"}})
	s.lose(t, 0)
	s.awaitXids(t, 0, 79, 1)
	kube.Eventually(t, soon, func() error {
		log := s.Log()
		for _, want := range []string{"would write node condition and taint", ownTaint + "=GPULost:NoSchedule", "would create event"} {
			if !strings.Contains(log, want) {
				return fmt.Errorf("the log does not say %q", want)
			}
		}
		return nil
	})
	pause(t.Context(), 2*time.Second)
	if versions := seen.Versions(t); len(versions) != 1 {
		t.Errorf("the node was written %d times, want never", len(versions)-1)
	}
	if events := cluster.Events(t, "dry-run", "gpuvet.dev"); len(events) > 0 {
		t.Errorf("events were written: %v", messages(events))
	}
}

// What deploy/README.md says of taking gpuvet away again.
func TestNodeConditionCanBeTakenAway(t *testing.T) {
	t.Parallel()
	s := newSubject(t, "left")
	s.stop(t)
	away := []byte(`{"status":{"conditions":[{"type":"GPUHealthy","$patch":"delete"}]}}`)
	nodes := cluster.Admin().CoreV1().Nodes()
	if _, err := nodes.Patch(t.Context(), s.node, types.StrategicMergePatchType, away, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	if left := kube.Condition(cluster.Node(t, s.node), "GPUHealthy"); left != nil {
		t.Errorf("left is %+v", left)
	}
}
