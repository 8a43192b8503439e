package e2e

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

const (
	measuredFaults = 200
	// A daemon per node is too much for a small machine if all run at once.
	daemonsAtOnce = 8
)

// TestMeasureXidToNode prints how long it takes from a line in the kernel log to
// the node's taint and condition as a watcher of the API server sees them, and
// what memory the daemon takes after it. Each fault is the first of its node.
func TestMeasureXidToNode(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") != "all" {
		t.Skip("takes minutes: set GPUVET_MEASURE=all")
	}
	var taints, conditions []time.Duration
	var memory []int64
	for round := 0; len(taints) < measuredFaults; round++ {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			subjects := make([]*subject, daemonsAtOnce)
			for i := range subjects {
				node := fmt.Sprintf("measured-%d-%d", round, i)
				cluster.AddNode(t, node)
				fleet := daemon.NewFleet(8)
				subjects[i] = newProcess(daemon.Start(t, cluster, daemon.Options{Node: node, Scenario: fleet.Scenario(t)}), fleet)
			}
			for _, s := range subjects {
				s.awaitHealthy(t)
			}
			pause(t.Context(), time.Second) // each saves what it has found
			for i, s := range subjects {
				seen := cluster.WatchNode(t, s.node)
				written := time.Now()
				s.lose(t, i%len(s.fleet))
				s.awaitFenced(t, i%len(s.fleet))
				pause(t.Context(), 100*time.Millisecond)
				taints = append(taints, since(t, seen, written, func(n *corev1.Node) bool { return len(ownTaints(n)) > 0 }))
				conditions = append(conditions, since(t, seen, written, func(n *corev1.Node) bool {
					return kube.Condition(n, ownCondition).Status == corev1.ConditionFalse
				}))
			}
			for _, s := range subjects {
				memory = append(memory, s.AnonymousMemory(t))
			}
		})
		if t.Failed() {
			return
		}
	}
	slices.Sort(memory)
	t.Logf("%d first faults: %s", len(taints), "kernel line to what a watcher sees")
	t.Logf("taint:     %s", spread(taints))
	t.Logf("condition: %s", spread(conditions))
	t.Logf("RssAnon after it, 8 GPUs: p50 %.1f MiB, most %.1f MiB",
		float64(memory[len(memory)/2])/(1<<20), float64(memory[len(memory)-1])/(1<<20))
}

// since is how long after a time the watcher saw the first version that is so.
func since(t *testing.T, seen *kube.History, from time.Time, so func(*corev1.Node) bool) time.Duration {
	t.Helper()
	for _, version := range seen.Versions(t) {
		if so(version.Node) {
			return version.At.Sub(from)
		}
	}
	t.Fatal("the watcher did not see it")
	return 0
}

func spread(all []time.Duration) string {
	slices.Sort(all)
	at := func(share float64) time.Duration {
		return all[int(share*float64(len(all)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, most %s", at(0.5), at(0.9), at(0.99), at(1))
}
