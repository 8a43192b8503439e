package e2e

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/kube"
)

func TestPlainPodRunsOnTheNode(t *testing.T) {
	cluster.CreatePod(t, kube.Pod{Name: "plain"})
	if pod := cluster.AwaitRunning(t, "plain"); pod.Spec.NodeName != kube.NodeName {
		t.Errorf("pod runs on %q, want %q", pod.Spec.NodeName, kube.NodeName)
	}
}

func TestPodForAnUnknownNodeIsUnschedulable(t *testing.T) {
	cluster.CreatePod(t, kube.Pod{Name: "nowhere", Node: "no-such-node"})
	if why := cluster.AwaitUnschedulable(t, "nowhere"); !strings.Contains(why, "affinity/selector") {
		t.Errorf("scheduler refused for another reason: %s", why)
	}
}

func TestAPIServerComesBackWithItsObjects(t *testing.T) {
	before := cluster.Node(t, kube.NodeName).UID
	cluster.StopAPIServer()
	if _, err := cluster.Admin().CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("API server answers while it is stopped")
	}
	if err := cluster.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := cluster.Node(t, kube.NodeName).UID; after != before {
		t.Errorf("node has UID %s, had %s", after, before)
	}
}
