package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/kube"
)

// HandOver is how a node went from one daemon to the next, by what both logged.
type HandOver struct {
	Stopping  time.Time // the old daemon heard that it is to end
	Unlocked  time.Time // and had saved its state
	TakenOver time.Time // the new one had it
	Ready     time.Time // and had read the kernel log and looked for the GPUs
}

// Rollout changes the template of the pods and waits until the new pod is alone and
// at work. The test fails if the node has no ready pod meanwhile, or if the new one
// was ready and is so no more.
func (s *Set) Rollout(t testing.TB) HandOver {
	t.Helper()
	old := s.AwaitReady(t)
	told := s.follow(t.Context(), old.Name)
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"example.com/rollout":%q}}}}}`, time.Now())
	_, err := s.cluster.Admin().AppsV1().DaemonSets(namespace).
		Patch(t.Context(), setName, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatalf("change DaemonSet: %v", err)
	}
	var next *corev1.Pod
	kube.Eventually(t, time.Minute, func() error {
		pods, err := s.cluster.Admin().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: setLabel})
		if err != nil {
			return err
		}
		var gone bool
		if next, gone = expectReady(t, pods.Items, old, next); next == nil || !gone {
			return errors.New("the old pod is there")
		}
		return s.atWork(t.Context())
	})
	if now := s.AwaitReady(t); now.UID != next.UID {
		t.Errorf("pod %s followed on %s", now.Name, next.Name)
	}
	before := <-told
	s.told = append(s.told, before)
	after := s.podLog(next.Name)
	return HandOver{
		Stopping:  logTime(t, before, "gpuvet is stopping"),
		Unlocked:  logTime(t, before, "state folder is unlocked"),
		TakenOver: logTime(t, after, "taking over"),
		Ready:     logTime(t, after, "ready"),
	}
}

// expectReady looks at the pods during a rollout. It gives the new one once it is
// ready, and whether the old one is gone.
func expectReady(t testing.TB, pods []corev1.Pod, old, next *corev1.Pod) (*corev1.Pod, bool) {
	t.Helper()
	ready, gone := 0, true
	for i := range pods {
		pod := &pods[i]
		isReady := kube.Ready(pod) == nil && pod.DeletionTimestamp == nil
		if isReady {
			ready++
		}
		if pod.UID == old.UID {
			gone = false
			continue
		}
		if next == nil && isReady {
			next = pod
		}
	}
	if ready == 0 {
		t.Error("the node has no ready pod")
	}
	if next != nil {
		if err := probe(t.Context(), next.Status.PodIP); err != nil {
			t.Errorf("the new pod is ready no more: %v", err)
		}
	}
	return next, gone
}

// probe asks as the kubelet does, and more often.
func probe(ctx context.Context, ip string) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ip+":9410/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// follow gives the log of a pod once its container has ended: afterwards nobody has
// it any more.
func (s *Set) follow(ctx context.Context, pod string) <-chan string {
	told := make(chan string, 1)
	go func() {
		ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
		defer stop()
		log, err := s.cluster.Kubectl(ctx, "logs", "--follow", "-n", namespace, pod)
		if err != nil {
			log += err.Error()
		}
		told <- log
	}()
	return told
}

// logTime is when a message was logged first.
func logTime(t testing.TB, log, message string) time.Time {
	t.Helper()
	for line := range strings.Lines(log) {
		var entry struct {
			TS  time.Time
			Msg string
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == message {
			return entry.TS
		}
	}
	t.Errorf("nobody has logged %q:\n%s", message, log)
	return time.Time{}
}
