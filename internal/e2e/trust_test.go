package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// A daemon whose node was taken over: it has the token of its own node, and
// would rather write to another.
func TestNodeOwnTokenOnly(t *testing.T) {
	t.Parallel()
	cluster.AddNode(t, "token-own")
	cluster.AddNode(t, "token-other")
	awaitQuiet(t, "token-other")
	seen := cluster.WatchNode(t, "token-other")
	s := start(t, daemon.Options{Node: "token-other", TokenNode: "token-own"})
	s.lose(t, 0)
	s.awaitXids(t, 0, 79, 1)
	const (
		taintRefused     = "tried to change node token-other with the token of node token-own"
		conditionRefused = "tried to change the status of node token-other with the token of node token-own"
		eventRefused     = "tried to write an event about Node token-other"
	)
	kube.Eventually(t, soon, func() error {
		for _, words := range []string{taintRefused, conditionRefused, eventRefused} {
			if !strings.Contains(s.Log(), words) {
				return fmt.Errorf("the log does not have the refusal %q", words)
			}
		}
		metrics := s.Metrics(t)
		for _, call := range []string{"patch node", "patch node status", "create event on node"} {
			refused, err := metrics.Value("gpuvet_call_errors_total", "call", call)
			if err != nil {
				return err
			}
			if refused == 0 {
				return fmt.Errorf("no call %q has failed", call)
			}
		}
		return s.isHindered(t)
	})
	if status, _ := s.Command(t, "status"); !strings.Contains(status, taintRefused) {
		t.Errorf("gpuvet status does not say why nothing is written:\n%s", status)
	}
	s.lose(t, 1)
	s.awaitXids(t, 1, 79, 1)
	for _, version := range seen.Versions(t)[1:] {
		t.Errorf("the other node was changed: %v", version.Node.ManagedFields)
	}
	if events := cluster.Events(t, "token-other", "gpuvet.dev"); len(events) > 0 {
		t.Errorf("events about the other node: %v", messages(events))
	}
}

// With real GPUs only the kernel's own lines count. Alone, for every test
// writes lines that only look like the kernel's.
func TestNodeSpoofedLine(t *testing.T) {
	cluster.AddNode(t, "spoofed")
	gpu := daemon.NewFleet(1)[0]
	d := daemon.Start(t, cluster, daemon.Options{Node: "spoofed"})
	d.AwaitReady(t)
	before, err := d.Value(t.Context(), "gpuvet_kernel_log_spoofed_total")
	if err != nil {
		t.Fatal(err)
	}
	daemon.KernelLog(t, gpu.Xid(79, fallen))
	kube.Eventually(t, soon, func() error {
		after, err := d.Value(t.Context(), "gpuvet_kernel_log_spoofed_total")
		if err == nil && after != before+1 {
			err = fmt.Errorf("%v lines are called spoofed, want %v", after, before+1)
		}
		return err
	})
	pause(t.Context(), 2*time.Second)
	for name, family := range d.Metrics(t) {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if strings.Contains(label.GetValue(), gpu.PCI) || label.GetName() == "xid" || label.GetValue() == "Xid" {
					t.Errorf("the line made a series: %s %v", name, metric.GetLabel())
				}
			}
		}
	}
	node := cluster.Node(t, "spoofed")
	if own := ownTaints(node); len(own) > 0 {
		t.Errorf("the line fenced the node: %v", own)
	}
	if condition := kube.Condition(node, ownCondition); condition != nil && condition.Status == corev1.ConditionFalse {
		t.Errorf("the line made the condition False: %s", condition.Message)
	}
	if events := cluster.Events(t, "spoofed", "gpuvet.dev"); len(events) > 0 {
		t.Errorf("the line was told: %v", messages(events))
	}
}
