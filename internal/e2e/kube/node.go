package kube

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AddNode makes a ready node without a kubelet, which goes with the test. Pods
// that the scheduler puts there stay Pending.
func (c *Cluster) AddNode(t testing.TB, name string) *corev1.Node {
	t.Helper()
	pods := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("110")}
	// The API server keeps the status of a new node: that is how kubelets register.
	created, err := c.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name[:min(len(name), 63)]}},
		Status: corev1.NodeStatus{
			Capacity:    pods,
			Allocatable: pods,
			Addresses:   []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test",
				LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("add node %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := c.admin.CoreV1().Nodes().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove node %s: %v", name, err)
		}
	})
	Eventually(t, time.Minute, func() error {
		node, err := c.admin.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		created = node
		return settled(node)
	})
	return created
}

// Node reads a node.
func (c *Cluster) Node(t testing.TB, name string) *corev1.Node {
	t.Helper()
	node, err := c.admin.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("read node: %v", err)
	}
	return node
}

// Taint is the taint of the node with that key, nil if it has none.
func Taint(node *corev1.Node, key string) *corev1.Taint {
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == key {
			return &node.Spec.Taints[i]
		}
	}
	return nil
}

// Condition is the condition of the node of that type, nil if it has none.
func Condition(node *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == kind {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}
