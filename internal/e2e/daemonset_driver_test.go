package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// The tests of this file have the GPUs read as real ones are: by worker
// processes with the real bindings, through a libnvidia-ml.so.1 that plays the
// scenario.

const worker = "gpuvet-nvml"

// startDriver starts the DaemonSet with four GPUs that workers read, and waits
// until all is well.
func startDriver(t *testing.T, o daemon.SetOptions) *shippedSet {
	t.Helper()
	o.Fleet, o.Library = daemon.NewFleet(4), true
	set := daemon.StartSet(t, cluster, o)
	s := &shippedSet{Set: set, watched: watched{daemon: set, node: kube.NodeName, fleet: o.Fleet}}
	s.AwaitReady(t)
	s.awaitHealthy(t)
	return s
}

// workers are the worker processes of the pod.
func (s *shippedSet) workers(t *testing.T, pod *corev1.Pod) []kube.Process {
	t.Helper()
	var found []kube.Process
	for _, process := range cluster.Processes(t, pod) {
		if process.Name == worker {
			found = append(found, process)
		}
	}
	return found
}

// awaitAnswers waits until each of the GPUs has answered after a time.
func (s *shippedSet) awaitAnswers(t *testing.T, after time.Time, gpus ...int) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		metrics := s.Metrics(t)
		for _, gpu := range gpus {
			answered, err := metrics.Value("gpuvet_gpu_last_answer_timestamp_seconds", "uuid", s.fleet[gpu].UUID)
			if err != nil {
				return err
			}
			if at := time.UnixMicro(int64(answered * 1e6)); at.Before(after) {
				return fmt.Errorf("GPU %d has not answered since %s", gpu, at.Format(time.TimeOnly))
			}
			if _, err := metrics.Value("gpuvet_gpu_temperature_celsius", "uuid", s.fleet[gpu].UUID, "sensor", "core"); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *shippedSet) awaitStatus(t *testing.T, gpu int, status string) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		is, err := s.Value(t.Context(), "gpuvet_gpu_status", "uuid", s.fleet[gpu].UUID, "status", status)
		if err == nil && is != 1 {
			err = fmt.Errorf("GPU %d is not %s", gpu, status)
		}
		return err
	})
}

func TestDaemonSetReadsThroughWorkers(t *testing.T) {
	t.Parallel()
	const hangs, ends = 9 * time.Second, 19 * time.Second // from the start of the daemon
	s := startDriver(t, daemon.SetOptions{Timeline: []string{
		fmt.Sprintf("{at: %s, gpu: 1, hang: %s}", hangs, ends-hangs),
	}})
	pod := s.AwaitReady(t)
	started := pod.Status.ContainerStatuses[0].State.Running.StartedAt.Time
	s.awaitAnswers(t, time.Now(), 0, 1, 2, 3)

	for _, w := range s.workers(t, pod) {
		if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
			t.Errorf("kill worker: %v", err)
		}
	}
	killed := time.Now()
	s.awaitAnswers(t, killed, 0, 1, 2, 3)
	t.Logf("readings were back %s after the workers were killed", time.Since(killed))

	s.awaitStatus(t, 1, "Unknown")
	// By now it has hung for as long as an answer stays fresh.
	for _, gpu := range []int{0, 2, 3} {
		if is, err := s.Value(t.Context(), "gpuvet_gpu_status", "uuid", s.fleet[gpu].UUID, "status", "Healthy"); err != nil || is != 1 {
			t.Errorf("GPU %d is not healthy while another hangs: %v", gpu, err)
		}
	}
	s.awaitAnswers(t, time.Now(), 0, 2, 3)
	kube.Eventually(t, soon, func() error {
		if condition := kube.Condition(read(t, s.node), ownCondition); condition.Status != corev1.ConditionUnknown {
			return fmt.Errorf("condition is %s (%s) while a GPU hangs, want Unknown", condition.Status, condition.Reason)
		}
		return nil
	})
	s.awaitAnswers(t, started.Add(ends), 1)
	s.awaitStatus(t, 1, "Healthy")
	s.awaitHealthy(t)
}

// A worker that hangs in the kernel cannot be ended, not even by SIGKILL. The pod
// goes all the same, and the next one reads the other GPUs.
func TestDaemonSetOutlivesWorkerStuckInKernel(t *testing.T) {
	t.Parallel()
	filesystem := cluster.NewFilesystem(t)
	melt := filesystem.Freeze(t)
	s := startDriver(t, daemon.SetOptions{
		Timeline: []string{"{at: 5s, gpu: 0, hang: 1h, uninterruptible: true}"},
		Env:      map[string]string{"GPUVET_FAKE_NVML_STUCK": filepath.Join(filesystem.Dir, "stuck")},
		Mounts:   []string{filesystem.Dir},
	})
	t.Cleanup(melt) // before the DaemonSet is removed
	pod := s.AwaitReady(t)
	var stuck kube.Process
	kube.Eventually(t, soon, func() error {
		for _, w := range s.workers(t, pod) {
			if w.Stuck() {
				stuck = w
				return nil
			}
		}
		return fmt.Errorf("no worker has a thread in state D: %v", cluster.Processes(t, pod))
	})
	s.awaitStatus(t, 0, "Unknown")
	s.awaitAnswers(t, time.Now(), 1, 2, 3)

	deleted := time.Now()
	s.AwaitGone(t, s.Delete(t))
	took, limit := time.Since(deleted), time.Duration(*pod.Spec.TerminationGracePeriodSeconds)*time.Second
	if took > limit {
		t.Errorf("the pod was gone after %s, want %s", took, limit)
	}
	t.Logf("the pod was gone after %s", took)
	s.AwaitReady(t)
	s.awaitAnswers(t, time.Now(), 1, 2, 3)
	if now, err := kube.ReadProcess(stuck.PID); err != nil || !now.Stuck() {
		t.Errorf("the worker was not stuck for so long: %v %v", now, err)
	}
}

// A pause by each of those who may ask for one.
func TestDaemonSetPauses(t *testing.T) {
	t.Parallel()
	s := startDriver(t, daemon.SetOptions{})
	pod := s.AwaitReady(t)
	for _, tt := range []struct {
		by            string
		pause, resume func()
	}{
		{
			by:     "hand",
			pause:  func() { s.expect(t, "pause", "--for", "10m", "--reason", "a reset of GPU 1") },
			resume: func() { s.expect(t, "resume") },
		},
		{
			by:     "annotation",
			pause:  func() { markNode(t, "annotations", "gpuvet.dev/pause", "10m") },
			resume: func() { markNode(t, "annotations", "gpuvet.dev/pause", "") },
		},
		{
			by:     "driver upgrade",
			pause:  func() { markNode(t, "labels", "nvidia.com/gpu-driver-upgrade-state", "pod-restart-required") },
			resume: func() { markNode(t, "labels", "nvidia.com/gpu-driver-upgrade-state", "upgrade-done") },
		},
	} {
		if len(s.workers(t, pod)) == 0 {
			t.Fatalf("no worker runs before the pause by %s", tt.by)
		}
		tt.pause()
		kube.Eventually(t, soon, func() error {
			if left := s.workers(t, pod); len(left) > 0 {
				return fmt.Errorf("paused by %s, workers run: %v", tt.by, left)
			}
			if condition := kube.Condition(read(t, s.node), ownCondition); condition.Status != corev1.ConditionUnknown {
				return fmt.Errorf("paused by %s, condition is %s (%s), want Unknown", tt.by, condition.Status, condition.Reason)
			}
			return nil
		})
		// Nothing is known to be wrong.
		if own := ownTaints(read(t, s.node)); len(own) > 0 {
			t.Errorf("paused by %s, the node is tainted: %v", tt.by, own)
		}
		tt.resume()
		s.awaitAnswers(t, time.Now(), 0, 1, 2, 3)
		// Good news that follows bad news closely has to wait for its turn.
		kube.Eventually(t, 2*soon, func() error { return healthy(read(t, s.node)) })
	}
}

// expect runs a command of gpuvet that has to succeed.
func (s *shippedSet) expect(t *testing.T, args ...string) {
	t.Helper()
	if output, code := s.Command(t, args...); code != 0 {
		t.Fatalf("gpuvet %s ends with %d:\n%s", strings.Join(args, " "), code, output)
	}
}

// markNode sets a label or an annotation of the node that has a kubelet, and
// takes it away at the end of the test. An empty value takes it away at once.
func markNode(t *testing.T, where, key, value string) {
	t.Helper()
	set := func(ctx context.Context, to string) error {
		patch := fmt.Sprintf(`{"metadata":{%q:{%q:%s}}}`, where, key, to)
		_, err := cluster.Admin().CoreV1().Nodes().
			Patch(ctx, kube.NodeName, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	to := "null"
	if value != "" {
		to = fmt.Sprintf("%q", value)
		t.Cleanup(func() {
			if err := set(context.WithoutCancel(t.Context()), "null"); err != nil {
				t.Errorf("take %s away: %v", key, err)
			}
		})
	}
	if err := set(t.Context(), to); err != nil {
		t.Fatalf("mark node: %v", err)
	}
}
