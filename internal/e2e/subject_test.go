package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

const (
	fallen = "pid='<unknown>', name=<unknown>, GPU has fallen off the bus."

	// soon is for what happens at once, on a machine that does much else.
	soon = 15 * time.Second
)

// subject is a node with GPUs and the daemon that watches them as a process of
// its own, with the rights that it ships with.
type subject struct {
	*daemon.Daemon
	watched
}

// watched is a node with GPUs and what can be asked about them, however their
// daemon runs.
type watched struct {
	daemon asked
	node   string
	fleet  daemon.Fleet
}

// asked is the daemon of a node.
type asked interface {
	Metrics(t testing.TB) daemon.Metrics
	Value(ctx context.Context, name string, labels ...string) (float64, error)
}

// newSubject starts a daemon on a node of its own and waits until the node says
// that all is well. Timeline counts from the start of each life.
func newSubject(t *testing.T, node string, timeline ...string) *subject {
	t.Helper()
	cluster.AddNode(t, node)
	s := start(t, daemon.Options{Node: node}, timeline...)
	s.awaitHealthy(t)
	return s
}

// start starts a daemon with three GPUs and waits until it is ready.
func start(t *testing.T, o daemon.Options, timeline ...string) *subject {
	t.Helper()
	fleet := daemon.NewFleet(3)
	o.Scenario = fleet.Scenario(t, timeline...)
	s := newProcess(daemon.Start(t, cluster, o), fleet)
	s.AwaitReady(t)
	return s
}

func newProcess(d *daemon.Daemon, fleet daemon.Fleet) *subject {
	return &subject{Daemon: d, watched: watched{daemon: d, node: d.Options.Node, fleet: fleet}}
}

// recover restarts the daemon with a script that loads the driver again, which
// is the evidence that ends a fault, and waits for it.
func (s *subject) recover(t *testing.T) {
	t.Helper()
	s.stop(t)
	s.Options.Scenario = s.fleet.Scenario(t, "{at: 1s, reload: driver}")
	s.Restart(t)
	s.awaitHealthy(t)
}

// stop ends the daemon as the kubelet does.
func (s *subject) stop(t *testing.T) {
	t.Helper()
	if code := s.Stop(t); code != 0 {
		t.Errorf("daemon ended with %d on SIGTERM, want 0", code)
	}
}

// lose has the driver report a GPU as lost.
func (w watched) lose(t *testing.T, gpu int) {
	t.Helper()
	daemon.KernelLog(t, w.fleet[gpu].Xid(79, fallen))
}

func (w watched) awaitHealthy(t *testing.T) {
	t.Helper()
	kube.Eventually(t, soon, func() error { return healthy(read(t, w.node)) })
}

func (w watched) awaitFenced(t *testing.T, gpu int) {
	t.Helper()
	kube.Eventually(t, soon, func() error { return fenced(read(t, w.node), w.fleet[gpu]) })
}

// awaitXids waits until the daemon counts so many reports of the code.
func (w watched) awaitXids(t *testing.T, gpu, code int, want float64) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		got, err := w.daemon.Value(t.Context(), "gpuvet_gpu_xid_errors_total", "uuid", w.fleet[gpu].UUID, "xid", fmt.Sprint(code))
		if err == nil && got != want {
			err = fmt.Errorf("%v reports of Xid %d are counted, want %v", got, code, want)
		}
		return err
	})
}

// isHindered is nil if the metrics say that the node cannot be written.
func (w watched) isHindered(t *testing.T) error {
	t.Helper()
	up, err := w.daemon.Value(t.Context(), "gpuvet_output_up", "output", "node")
	if err == nil && up != 0 {
		err = fmt.Errorf("gpuvet_output_up is %v, want 0", up)
	}
	return err
}

// events are those of a reason that the daemon wrote about its node and GPUs.
func (w watched) events(t *testing.T, reason string) []corev1.Event {
	t.Helper()
	var found []corev1.Event
	for _, event := range cluster.Events(t, w.node, "gpuvet.dev") {
		for _, gpu := range w.fleet {
			if event.Reason == reason && strings.Contains(event.Message, gpu.UUID) {
				found = append(found, event)
			}
		}
	}
	return found
}

func (w watched) awaitEvents(t *testing.T, reason string, want int) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		if events := w.events(t, reason); len(events) != want {
			return fmt.Errorf("%d events %s on node %s, want %d: %v", len(events), reason, w.node, want, messages(events))
		}
		return nil
	})
}

func messages(events []corev1.Event) []string {
	var all []string
	for _, event := range events {
		all = append(all, event.Name+": "+event.Message)
	}
	return all
}

// read is the node, or nil while the API server is away.
func read(t *testing.T, name string) *corev1.Node {
	t.Helper()
	node, err := cluster.Admin().CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return node
}

// healthy is nil if the node says that its GPUs are well, and is not fenced.
func healthy(node *corev1.Node) error {
	if node == nil {
		return fmt.Errorf("node cannot be read")
	}
	condition := kube.Condition(node, ownCondition)
	switch {
	case condition == nil:
		return fmt.Errorf("node %s has no condition %s", node.Name, ownCondition)
	case condition.Status != corev1.ConditionTrue:
		return fmt.Errorf("condition of node %s is %s (%s: %s), want True", node.Name, condition.Status, condition.Reason, condition.Message)
	case len(ownTaints(node)) > 0:
		return fmt.Errorf("node %s is tainted: %v", node.Name, node.Spec.Taints)
	}
	return nil
}

// fenced is nil if the node says that the GPU is lost, and has our taint once.
func fenced(node *corev1.Node, gpu daemon.GPU) error {
	if node == nil {
		return fmt.Errorf("node cannot be read")
	}
	condition, taints := kube.Condition(node, ownCondition), ownTaints(node)
	switch {
	case condition == nil:
		return fmt.Errorf("node %s has no condition %s", node.Name, ownCondition)
	case condition.Status != corev1.ConditionFalse || condition.Reason != "GPULost":
		return fmt.Errorf("condition of node %s is %s (%s), want False (GPULost)", node.Name, condition.Status, condition.Reason)
	case !strings.Contains(condition.Message, gpu.UUID) || !strings.Contains(condition.Message, gpu.PCI):
		return fmt.Errorf("condition of node %s does not name %s: %s", node.Name, gpu.UUID, condition.Message)
	case len(taints) != 1 || taints[0].Value != "GPULost" || taints[0].Effect != corev1.TaintEffectNoSchedule:
		return fmt.Errorf("taints of node %s are %v, want %s=GPULost:NoSchedule once", node.Name, node.Spec.Taints, ownTaint)
	}
	return nil
}

// ownTaints are the entries under our key.
func ownTaints(node *corev1.Node) []corev1.Taint {
	var own []corev1.Taint
	for _, taint := range node.Spec.Taints {
		if taint.Key == ownTaint {
			own = append(own, taint)
		}
	}
	return own
}

// patchNode changes a node as an administrator.
func patchNode(t *testing.T, name, patch string) {
	t.Helper()
	_, err := cluster.Admin().CoreV1().Nodes().
		Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatalf("patch node: %v", err)
	}
}

// pause lets time pass in which nothing may happen.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
