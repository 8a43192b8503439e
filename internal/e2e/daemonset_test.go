package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// shippedSet is the node that has a kubelet, with the DaemonSet that ships.
type shippedSet struct {
	*daemon.Set
	watched
}

// startSet starts the DaemonSet with two GPUs that play a script and waits until
// the node says that all is well.
func startSet(t *testing.T, timeline ...string) *shippedSet {
	t.Helper()
	fleet := daemon.NewFleet(2)
	set := daemon.StartSet(t, cluster, daemon.SetOptions{Fleet: fleet, Timeline: timeline})
	s := &shippedSet{Set: set, watched: watched{daemon: set, node: kube.NodeName, fleet: fleet}}
	s.AwaitReady(t)
	s.awaitHealthy(t)
	return s
}

// The whole way: kernel log, metrics, node, scheduler, and back.
func TestDaemonSetXidFencesAndRecovers(t *testing.T) {
	t.Parallel()
	s := startSet(t)
	s.lose(t, 1)
	s.awaitFenced(t, 1)
	cluster.CreatePod(t, kube.Pod{Name: "after-the-fault", Node: kube.NodeName})
	if why := cluster.AwaitUnschedulable(t, "after-the-fault"); !strings.Contains(why, "untolerated taint") {
		t.Errorf("scheduler holds the pod back for another reason than a taint: %s", why)
	}
	// The scheduler does not say which taint. That another pod may pass does.
	cluster.CreatePod(t, kube.Pod{
		Name: "tolerant", Node: kube.NodeName,
		Tolerations: []corev1.Toleration{{Key: ownTaint, Value: "GPULost", Effect: corev1.TaintEffectNoSchedule}},
	})
	cluster.AwaitRunning(t, "tolerant")
	s.awaitXids(t, 1, 79, 1)
	s.awaitXids(t, 0, 79, 0)
	s.awaitEvents(t, "GPULost", 1)
	status, code := s.Command(t, "status")
	row := slices.IndexFunc(strings.Split(status, "\n"), func(line string) bool {
		return strings.Contains(line, s.fleet[1].UUID) && strings.Contains(line, "Unhealthy") && strings.Contains(line, "GPULost (Xid 79)")
	})
	if code != 0 || row < 0 {
		t.Errorf("gpuvet status ends with %d and does not show the lost GPU:\n%s", code, status)
	}

	// The new pod finds the state of the old one, and a driver that was loaded again.
	s.Play(t, "{at: 1s, reload: driver}")
	s.AwaitGone(t, s.Delete(t))
	s.awaitHealthy(t)
	cluster.AwaitRunning(t, "after-the-fault")
	s.awaitEvents(t, "GPULostCleared", 1)
	s.awaitEvents(t, "GPULost", 1)
	s.awaitXids(t, 1, 79, 1)
}

// A fence stands while the daemon is killed and while it is replaced, and each
// report is counted once.
func TestDaemonSetKeepsFence(t *testing.T) {
	t.Parallel()
	s := startSet(t)
	s.lose(t, 0)
	s.awaitFenced(t, 0)
	s.awaitEvents(t, "GPULost", 1)
	seen := cluster.WatchNode(t, s.node)

	s.Kill9(t)
	s.awaitXids(t, 0, 79, 1)
	stop := s.keepBlaming(t, 1)
	handedOver := s.Rollout(t)
	blamed := stop()
	s.awaitXids(t, 0, 79, 1)
	s.awaitXids(t, 1, 31, float64(blamed))
	if took, limit := handedOver.TakenOver.Sub(handedOver.Stopping), 2*time.Second; took > limit {
		t.Errorf("the new daemon took over %s after the old one was to end, want %s", took, limit)
	}
	t.Logf("unlocked %s after the signal, taken over %s later, ready %s later; %d reports meanwhile",
		handedOver.Unlocked.Sub(handedOver.Stopping), handedOver.TakenOver.Sub(handedOver.Unlocked), handedOver.Ready.Sub(handedOver.TakenOver), blamed)
	// A line that comes while no daemon runs, or while the next one starts.
	s.AwaitGone(t, s.Delete(t))
	s.lose(t, 1)
	s.AwaitReady(t)
	s.awaitFenced(t, 1)
	s.awaitXids(t, 0, 79, 1)
	s.awaitXids(t, 1, 79, 1)
	s.awaitEvents(t, "GPULost", 2) // one per GPU
	for _, version := range seen.Versions(t) {
		if err := fenced(version.Node, s.fleet[0]); err != nil {
			t.Errorf("the fence had a hole at %s: %v", version.At.Format(time.TimeOnly), err)
		}
	}
}

// keepBlaming has the driver report faults of an application, which fence nothing,
// until stop, which gives how many there were.
func (s *shippedSet) keepBlaming(t *testing.T, gpu int) (stop func() int) {
	t.Helper()
	ended := make(chan struct{})
	var writing sync.WaitGroup
	written := 0
	writing.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ; ; written++ {
			select {
			case <-ended:
				return
			case <-tick.C:
				daemon.KernelLog(t, s.fleet[gpu].Xid(31, "pid=4711, name=python3, Ch 00000008"))
			}
		}
	})
	stop = sync.OnceValue(func() int {
		close(ended)
		writing.Wait()
		return written
	})
	t.Cleanup(func() { stop() })
	return stop
}

// What the pod may do is what the file that ships says, and no more of the
// machine than it needs is seen from there.
func TestDaemonSetIsConfined(t *testing.T) {
	t.Parallel()
	s := startSet(t)
	pod := s.AwaitReady(t)
	if pod.Spec.HostNetwork || pod.Status.PodIP == pod.Status.HostIP {
		t.Errorf("pod has the address %s of its node", pod.Status.PodIP)
	}
	daemonProcess := cluster.Processes(t, pod)[0]
	root := fmt.Sprintf("/proc/%d/root", daemonProcess.PID)
	if err := os.WriteFile(root+"/usr/written", nil, 0o600); err == nil {
		t.Error("the root of the container can be written")
	}
	err := filepath.WalkDir(daemon.Folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is not root's alone: %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	expectOwnNodeAlone(t, pod)
}

// expectOwnNodeAlone uses the token that the kubelet has given to the pod.
func expectOwnNodeAlone(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	const other = "not-of-the-pod"
	cluster.AddNode(t, other)
	client := cluster.AsPod(t, pod)
	tryOnly := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
	for _, tt := range []struct {
		node, subresource, patch, refusal string
	}{
		{node: kube.NodeName, patch: `{"spec":{"taints":[{"key":"gpuvet.dev/unhealthy","value":"GPULost","effect":"NoSchedule"}]}}`},
		{node: kube.NodeName, subresource: "status", patch: `{"status":{"conditions":[{"type":"GPUHealthy","status":"False"}]}}`},
		{
			node: other, patch: `{"spec":{"taints":[{"key":"gpuvet.dev/unhealthy","value":"GPULost","effect":"NoSchedule"}]}}`,
			refusal: "tried to change node not-of-the-pod with the token of node node-1",
		},
		{
			node: other, subresource: "status", patch: `{"status":{"conditions":[{"type":"GPUHealthy","status":"False"}]}}`,
			refusal: "tried to change the status of node not-of-the-pod with the token of node node-1",
		},
	} {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), tt.node, types.StrategicMergePatchType, []byte(tt.patch), tryOnly, tt.subresource)
		expectRefusal(t, err, tt.refusal)
	}
	for node, refusal := range map[string]string{kube.NodeName: "", other: "tried to write an event about Node not-of-the-pod"} {
		_, err := client.CoreV1().Events("default").Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "pod-", Namespace: "default"},
			InvolvedObject: nodeReference(node), ReportingController: "gpuvet.dev", ReportingInstance: kube.NodeName,
			EventTime: metav1.NowMicro(), Type: "Warning", Reason: "GPULost", Action: "Report",
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		expectRefusal(t, err, refusal)
	}
}
