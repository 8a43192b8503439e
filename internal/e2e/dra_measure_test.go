package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// startOfferer starts a daemon of eight GPUs that are published, on a node of its own.
func startOfferer(t *testing.T, node string) *subject {
	t.Helper()
	cluster.AddNode(t, node)
	fleet := daemon.NewFleet(8)
	return newProcess(daemon.Start(t, cluster, daemon.Options{
		Node: node, Scenario: fleet.Scenario(t), Config: daemon.Config{DRA: "{enabled: auto}"},
	}), fleet)
}

func (s *subject) awaitPublished(t *testing.T) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		if n := len(s.devices(t)); n != len(s.fleet) {
			return fmt.Errorf("%d devices of %s are published, want %d", n, s.node, len(s.fleet))
		}
		return nil
	})
}

// TestMeasureXidToSlice prints how long it takes from a line in the kernel log to the
// device taint as a watcher of the API server sees it. Each fault is the first of its
// GPU, and comes to a node that was quiet: those that come together are written
// together, a second after the first.
func TestMeasureXidToSlice(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") != "all" {
		t.Skip("takes minutes: set GPUVET_MEASURE=all")
	}
	const rounds, nodes = 5, 5 // a daemon per node is too much if all run at once
	var taints []time.Duration
	var memory int64
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			subjects := make([]*subject, nodes)
			for i := range subjects {
				subjects[i] = startOfferer(t, fmt.Sprintf("sliced-%d-%d", round, i))
			}
			histories := make([]*kube.SliceHistory, nodes)
			for i, s := range subjects {
				s.awaitHealthy(t)
				s.awaitPublished(t)
				histories[i] = cluster.WatchSlices(t, s.node)
			}
			pause(t.Context(), time.Second) // each saves what it has found
			for gpu := range 8 {
				last := time.Now()
				for i, s := range subjects {
					written := time.Now()
					s.lose(t, gpu)
					s.awaitTaint(t, gpu, lostTaint)
					taints = append(taints, untilTainted(t, histories[i], s.fleet[gpu].Device()).Sub(written))
				}
				pause(t.Context(), time.Until(last.Add(1500*time.Millisecond)))
			}
			for _, s := range subjects {
				memory = max(memory, s.AnonymousMemory(t))
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d first faults, kernel line to what a watcher sees: %s", len(taints), spread(taints))
	t.Logf("RssAnon after it, 8 GPUs: most %.1f MiB", float64(memory)/(1<<20))
}

// untilTainted is when the watcher saw the device tainted first.
func untilTainted(t *testing.T, seen *kube.SliceHistory, device string) time.Time {
	t.Helper()
	var at time.Time
	kube.Eventually(t, soon, func() error {
		for _, version := range seen.Versions(t) {
			for _, d := range version.Slice.Spec.Devices {
				if d.Name == device && len(d.Taints) > 0 {
					at = version.At
					return nil
				}
			}
		}
		return errors.New("the watcher does not see it")
	})
	return at
}

// A node whose GPUs are well writes no slice.
func TestDRAIsQuiet(t *testing.T) {
	t.Parallel()
	expectNoSliceWrites(t, "dra-quiet", 2*time.Minute)
}

func TestMeasureDRAIsQuiet(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") != "all" {
		t.Skip("takes ten minutes: set GPUVET_MEASURE=all")
	}
	expectNoSliceWrites(t, "dra-quiet-for-long", 10*time.Minute)
}

func expectNoSliceWrites(t *testing.T, node string, during time.Duration) {
	t.Helper()
	s := startOfferer(t, node)
	s.awaitHealthy(t)
	s.awaitPublished(t)
	pause(t.Context(), 3*time.Second) // its start is over
	seen, before := cluster.WatchSlices(t, node), s.sliceWrites(t)
	pause(t.Context(), during)
	if versions := seen.Versions(t); len(versions) > 0 {
		t.Errorf("%d versions of slices in %s, want none", len(versions), during)
	}
	// A write that changes nothing makes no version, and is a call all the same.
	if calls := s.sliceWrites(t) - before; calls != 0 {
		t.Errorf("%v writes of slices in %s, want none", calls, during)
	}
}

// sliceWrites is how often the daemon has written slices.
func (s *subject) sliceWrites(t *testing.T) float64 {
	t.Helper()
	var all float64
	for _, verb := range []string{"create", "update", "delete"} {
		n, err := s.Value(t.Context(), "gpuvet_dra_slice_writes_total", "verb", verb)
		if err != nil {
			t.Fatal(err)
		}
		all += n
	}
	return all
}

// TestMeasureSliceFlaps has a GPU fail and recover fifty times, and counts what is
// written.
func TestMeasureSliceFlaps(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") != "all" {
		t.Skip("for docs/benchmarks.md: set GPUVET_MEASURE=all")
	}
	const flaps, most = 50, 4
	s := startOfferer(t, "flapping")
	s.awaitHealthy(t)
	s.awaitPublished(t)
	pause(t.Context(), 3*time.Second)
	seen, began := cluster.WatchSlices(t, s.node), time.Now()
	for range flaps {
		s.lose(t, 2)
		kube.Eventually(t, soon, func() error { // as soon as the daemon knows of it
			if out, code := s.Command(t, "clear", s.fleet[2].PCI, "GPULost"); code != 0 {
				return fmt.Errorf("gpuvet clear ends with %d: %s", code, out)
			}
			return nil
		})
	}
	took := time.Since(began)
	s.awaitTaint(t, 2, "")
	pause(t.Context(), 3*time.Second)
	versions := seen.Versions(t)
	t.Logf("%d flaps in %s: %d writes", flaps, took.Round(time.Millisecond), len(versions))
	// The bound is of a second: each further one may bring one write of bad news.
	if limit := most + int(took/time.Second); len(versions) > limit {
		t.Errorf("%d writes, want %d at most", len(versions), limit)
	}
}

// TestMeasurePrepare prints what preparing eight claims at once takes on the node with
// the kubelet, and a pod from its creation until it runs.
func TestMeasurePrepare(t *testing.T) {
	if os.Getenv("GPUVET_MEASURE") != "all" {
		t.Skip("takes minutes: set GPUVET_MEASURE=all")
	}
	fleet := daemon.NewFleet(8)
	s := newProcess(daemon.Start(t, cluster, daemon.Options{
		Node: kube.NodeName, Scenario: fleet.Scenario(t), Config: daemon.Config{DRA: "{enabled: auto}"},
	}), fleet)
	s.AwaitReady(t)
	o := offered(t, s.watched)
	var running []time.Duration
	for round := range 25 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			began := time.Now()
			for i := range 8 {
				o.use(t, fmt.Sprintf("at-once-%d", i), kube.Devices(gpuClass, 1))
			}
			for i := range 8 {
				cluster.AwaitRunning(t, fmt.Sprintf("at-once-%d", i))
			}
			running = append(running, time.Since(began))
		})
	}
	for _, operation := range []string{"prepare", "unprepare"} {
		var text strings.Builder
		for _, metric := range s.Metrics(t)["gpuvet_dra_operation_duration_seconds"].GetMetric() {
			if metric.GetLabel()[0].GetValue() != operation {
				continue
			}
			h := metric.GetHistogram()
			fmt.Fprintf(&text, "%d, mean %.2f ms", h.GetSampleCount(), 1000*h.GetSampleSum()/float64(h.GetSampleCount()))
			for _, bucket := range h.GetBucket() {
				fmt.Fprintf(&text, ", %d within %g ms", bucket.GetCumulativeCount(), 1000*bucket.GetUpperBound())
			}
		}
		t.Logf("%s: %s", operation, text.String())
	}
	t.Logf("eight pods at once, from the creation of the first until all run: %s", spread(running))
}
