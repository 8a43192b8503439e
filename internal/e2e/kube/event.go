package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Events are those that the reporter has written about the node.
func (c *Cluster) Events(t testing.TB, node, reporter string) []corev1.Event {
	t.Helper()
	list, err := c.admin.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Node,involvedObject.name=" + node,
	})
	if err != nil {
		t.Fatalf("list events: %v", err)
	}
	var events []corev1.Event
	for _, event := range list.Items {
		if event.ReportingController == reporter {
			events = append(events, event)
		}
	}
	return events
}
