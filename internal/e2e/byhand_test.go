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

// A person with kubectl alone: by annotations, with the author from the books of
// the API server.
func TestNodeIsAskedByAnnotations(t *testing.T) {
	s := newSubject(t, "asked")
	pci := s.fleet[1].PCI
	daemon.KernelLog(t, s.fleet[1].Xid(95, "pid=7, name=agent, Uncontained: FBHUB. RST: Yes, D-RST: No"))
	failed := func() error {
		condition := kube.Condition(cluster.Node(t, s.node), ownCondition)
		if condition == nil || condition.Status != corev1.ConditionFalse || condition.Reason != "UncorrectableMemory" {
			return fmt.Errorf("condition is %v, want False for UncorrectableMemory", condition)
		}
		return nil
	}
	kube.Eventually(t, soon, failed)

	kubectl(t, "annotate", "node", s.node, "gpuvet.dev/ignore=1 UncorrectableMemory for 2h", "--field-manager=jo")
	s.awaitHealthy(t)
	status, code := s.Command(t, "status")
	if want := pci + ": UncorrectableMemory ignored by the node's annotation (jo) until "; code != 0 || !strings.Contains(status, want) {
		t.Errorf("status does not say %q: code %d\n%s", want, code, status)
	}
	kubectl(t, "annotate", "node", s.node, "gpuvet.dev/ignore-")
	kube.Eventually(t, soon, failed)

	kubectl(t, "annotate", "node", s.node, "gpuvet.dev/clear=1 UncorrectableMemori")
	kube.Eventually(t, soon, func() error {
		for _, event := range cluster.Events(t, s.node, "gpuvet.dev") {
			if event.Reason == "ClearRefused" && event.Type == corev1.EventTypeWarning && strings.Contains(event.Message, `"UncorrectableMemori" is none`) {
				return nil
			}
		}
		return fmt.Errorf("no event says that the value is wrong")
	})
	if err := failed(); err != nil {
		t.Error(err)
	}
	kubectl(t, "annotate", "node", s.node, "--overwrite", "gpuvet.dev/clear="+pci+" UncorrectableMemory; 0", "--field-manager=jo")
	// By now there was so much news that what is good waits for a while.
	kube.Eventually(t, time.Minute, func() error { return healthy(read(t, s.node)) })
	s.awaitEvents(t, "UncorrectableMemoryCleared", 2) // once as ignored, once as cleared
	if cleared := strings.Join(messages(s.events(t, "UncorrectableMemoryCleared")), "\n"); !strings.Contains(cleared, "by the node's annotation (jo)") {
		t.Errorf("no event names who has cleared it:\n%s", cleared)
	}
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	if _, err := cluster.Kubectl(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}
