package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"

	"gpuvet.dev/internal/e2e/kube"
)

const (
	ownNode   = "rights-own"
	otherNode = "rights-other"

	ownTaint     = "gpuvet.dev/unhealthy"
	ownCondition = corev1.NodeConditionType("GPUHealthy")
)

// The rights under test are those of deploy/rbac, applied as they ship.

func TestNodeRightsOnNode(t *testing.T) {
	addFencedNode(t, ownNode)
	cluster.AddNode(t, otherNode)
	node := cluster.Node(t, ownNode)
	for _, tt := range []struct {
		name    string
		token   string // the node that the token is bound to
		status  bool   // change the status subresource
		change  func(*corev1.Node)
		refusal string // part of the denial; empty: accepted
	}{
		{
			name: "own taint added", token: ownNode,
			change: func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, unhealthy("GPULost")) },
		},
		{
			name: "own taint added before the others", token: ownNode,
			change: func(n *corev1.Node) {
				n.Spec.Taints = append([]corev1.Taint{unhealthy("GPULost")}, n.Spec.Taints...)
			},
		},
		{
			name: "own taint added as NoExecute", token: ownNode,
			change: func(n *corev1.Node) {
				taint := unhealthy("GPULost")
				taint.Effect = corev1.TaintEffectNoExecute
				n.Spec.Taints = append(n.Spec.Taints, taint)
			},
		},
		{
			name: "own condition added", token: ownNode, status: true,
			change: func(n *corev1.Node) { addCondition(n, ownCondition, corev1.ConditionFalse) },
		},
		{
			name: "nothing changed", token: ownNode,
			change: func(*corev1.Node) {},
		},

		{
			name: "own taint on another node", token: otherNode,
			change:  func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, unhealthy("GPULost")) },
			refusal: "tried to change node rights-own with the token of node rights-other; gpuvet may change only the node that its token is bound to",
		},
		{
			name: "label on another node", token: otherNode,
			change:  func(n *corev1.Node) { n.Labels["example.com/pool"] = "spare" },
			refusal: "tried to change node rights-own with the token of node rights-other",
		},
		{
			name: "own condition on another node", token: otherNode, status: true,
			change:  func(n *corev1.Node) { addCondition(n, ownCondition, corev1.ConditionFalse) },
			refusal: "tried to change the status of node rights-own with the token of node rights-other; gpuvet may change only the node",
		},
		{
			name:    "own taint with an unbound token",
			change:  func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, unhealthy("GPULost")) },
			refusal: "tried to change node rights-own with a token that is bound to no node",
		},
		{
			name: "own condition with an unbound token", status: true,
			change:  func(n *corev1.Node) { addCondition(n, ownCondition, corev1.ConditionFalse) },
			refusal: "tried to change the status of node rights-own with a token that is bound to no node",
		},

		{
			name: "label added", token: ownNode,
			change:  func(n *corev1.Node) { n.Labels["example.com/new"] = "yes" },
			refusal: "tried to change metadata.labels; gpuvet may change only its taint gpuvet.dev/unhealthy",
		},
		{
			name: "label changed", token: ownNode,
			change:  func(n *corev1.Node) { n.Labels["example.com/pool"] = "spare" },
			refusal: "tried to change metadata.labels;",
		},
		{
			name: "labels removed", token: ownNode,
			change:  func(n *corev1.Node) { n.Labels = nil },
			refusal: "tried to change metadata.labels;",
		},
		{
			name: "label of our own domain added", token: ownNode,
			change:  func(n *corev1.Node) { n.Labels["gpuvet.dev/fit"] = "true" },
			refusal: "tried to change metadata.labels;",
		},
		{
			name: "annotation added", token: ownNode,
			change:  func(n *corev1.Node) { n.Annotations = map[string]string{"example.com/new": "yes"} },
			refusal: "metadata.annotations",
		},
		{
			name: "finalizer added", token: ownNode,
			change:  func(n *corev1.Node) { n.Finalizers = []string{"example.com/keep"} },
			refusal: "tried to change metadata.finalizers;",
		},
		{
			name: "owner added", token: ownNode,
			change: func(n *corev1.Node) {
				n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "x", UID: "x"}}
			},
			refusal: "tried to change metadata.ownerReferences;",
		},
		{
			name: "node cordoned", token: ownNode,
			change:  func(n *corev1.Node) { n.Spec.Unschedulable = true },
			refusal: "tried to change spec.unschedulable; gpuvet may change only its taint gpuvet.dev/unhealthy",
		},
		{
			name: "label and cordon at once", token: ownNode,
			change: func(n *corev1.Node) {
				n.Labels["example.com/new"] = "yes"
				n.Spec.Unschedulable = true
			},
			refusal: "tried to change metadata.labels, spec.unschedulable;",
		},
		{
			name: "provider set", token: ownNode,
			change:  func(n *corev1.Node) { n.Spec.ProviderID = "example://other" },
			refusal: "tried to change spec.providerID;",
		},
		{
			name: "foreign taint added", token: ownNode,
			change: func(n *corev1.Node) {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "example.com/new", Effect: corev1.TaintEffectNoSchedule})
			},
			refusal: "tried to change taint example.com/new; gpuvet may change only its taint gpuvet.dev/unhealthy",
		},
		{
			name: "foreign taint removed", token: ownNode,
			change:  func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[1:] },
			refusal: "tried to change taint example.com/fence;",
		},
		{
			name: "all taints replaced by our own", token: ownNode,
			change:  func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{unhealthy("GPULost")} },
			refusal: "tried to change taint example.com/fence",
		},
		{
			name: "foreign taint given another effect", token: ownNode,
			change:  func(n *corev1.Node) { n.Spec.Taints[0].Effect = corev1.TaintEffectPreferNoSchedule },
			refusal: "tried to change taint example.com/fence",
		},
		{
			name: "foreign taint given another value", token: ownNode,
			change:  func(n *corev1.Node) { n.Spec.Taints[0].Value = "x" },
			refusal: "tried to change taint example.com/fence",
		},

		{
			name: "Ready made false", token: ownNode, status: true,
			change:  func(n *corev1.Node) { kube.Condition(n, corev1.NodeReady).Status = corev1.ConditionFalse },
			refusal: "tried to change condition Ready; gpuvet may change only its condition GPUHealthy",
		},
		{
			name: "Ready removed", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Status.Conditions = nil },
			refusal: "tried to change condition Ready;",
		},
		{
			name: "foreign condition added", token: ownNode, status: true,
			change:  func(n *corev1.Node) { addCondition(n, "KernelDeadlock", corev1.ConditionTrue) },
			refusal: "tried to change condition KernelDeadlock;",
		},
		{
			name: "capacity changed", token: ownNode, status: true,
			change: func(n *corev1.Node) {
				n.Status.Capacity["example.com/gpu"] = resource.MustParse("8")
			},
			refusal: "tried to change status.capacity; gpuvet may change only its condition GPUHealthy",
		},
		{
			name: "allocatable changed", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") },
			refusal: "tried to change status.allocatable;",
		},
		{
			name: "address changed", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Status.Addresses[0].Address = "elsewhere" },
			refusal: "tried to change status.addresses;",
		},
		{
			name: "phase changed", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Status.Phase = corev1.NodeTerminated },
			refusal: "tried to change status.phase;",
		},
		{
			name: "node info changed", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Status.NodeInfo.KernelVersion = "6.0" },
			refusal: "tried to change status.nodeInfo;",
		},
		{
			name: "volumes in use changed", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Status.VolumesInUse = []corev1.UniqueVolumeName{"x"} },
			refusal: "tried to change status.volumesInUse;",
		},
		{
			name: "label changed through the status", token: ownNode, status: true,
			change:  func(n *corev1.Node) { n.Labels["example.com/pool"] = "spare" },
			refusal: "tried to change metadata.labels; gpuvet may change only its condition GPUHealthy",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			patch := changed(t, node, tt.change)
			// Admission judges a dry run like any other, and the rows stay apart.
			dryRun := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
			var subresources []string
			if tt.status {
				subresources = []string{"status"}
			}
			_, err := shipped(t, tt.token).CoreV1().Nodes().
				Patch(t.Context(), ownNode, types.StrategicMergePatchType, patch, dryRun, subresources...)
			expectRefusal(t, err, tt.refusal)
		})
	}
}

func TestNodeRightsTakeOwnTaintAndConditionBack(t *testing.T) {
	addFencedNode(t, ownNode)
	nodes := shipped(t, ownNode).CoreV1().Nodes()
	for _, change := range []func(*corev1.Node){
		func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, unhealthy("GPULost")) },
		func(n *corev1.Node) { n.Spec.Taints[1].Value = "ResetRequired" },
		func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[:1] },
	} {
		patch := changed(t, cluster.Node(t, ownNode), change)
		if _, err := nodes.Patch(t.Context(), ownNode, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if left := kube.Taint(cluster.Node(t, ownNode), ownTaint); left != nil {
		t.Errorf("taint is still there: %v", left)
	}
	for _, status := range []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue} {
		patch := changed(t, cluster.Node(t, ownNode), func(n *corev1.Node) {
			if own := kube.Condition(n, ownCondition); own != nil {
				own.Status = status
			} else {
				addCondition(n, ownCondition, status)
			}
		})
		if _, err := nodes.Patch(t.Context(), ownNode, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	if own := kube.Condition(cluster.Node(t, ownNode), ownCondition); own == nil || own.Status != corev1.ConditionTrue {
		t.Errorf("condition is %v, want True", own)
	}
}

func TestNodeRightsOnConditionWrittenTwice(t *testing.T) {
	cluster.AddNode(t, ownNode)
	copied := `[{"op":"copy","from":"/status/conditions/0","path":"/status/conditions/-"}]`
	_, err := shipped(t, ownNode).CoreV1().Nodes().
		Patch(t.Context(), ownNode, types.JSONPatchType, []byte(copied), metav1.PatchOptions{}, "status")
	expectRefusal(t, err, "tried to change condition Ready")
}

// What no role grants, not even with the right token.
func TestNodeRightsOnEverythingElse(t *testing.T) {
	cluster.AddNode(t, ownNode)
	cluster.CreatePod(t, kube.Pod{Name: "bystander", Node: "no-such-node"})
	client := shipped(t, ownNode)
	for _, tt := range []struct {
		name    string
		try     func(context.Context, kubernetes.Interface) error
		refusal string
	}{
		{"secrets read", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets("gpuvet").List(ctx, metav1.ListOptions{})
			return err
		}, `cannot list resource "secrets"`},
		{"pods read", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			return err
		}, `cannot list resource "pods"`},
		{"pod deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Pods("default").Delete(ctx, "bystander", metav1.DeleteOptions{})
		}, `cannot delete resource "pods"`},
		{"pod evicted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.PolicyV1().Evictions("default").Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "bystander", Namespace: "default"}})
		}, `cannot create resource "pods/eviction"`},
		{"pod status changed", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Pods("default").Patch(ctx, "bystander", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{}, "status")
			return err
		}, `cannot patch resource "pods/status"`},
		{"token made", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ServiceAccounts("gpuvet").Get(ctx, "gpuvet", metav1.GetOptions{})
			return err
		}, `cannot get resource "serviceaccounts"`},
		{"node created", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{})
			return err
		}, `cannot create resource "nodes"`},
		{"node deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Nodes().Delete(ctx, ownNode, metav1.DeleteOptions{})
		}, `cannot delete resource "nodes"`},
		{"node updated as a whole", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Nodes().Update(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: ownNode}}, metav1.UpdateOptions{})
			return err
		}, `cannot update resource "nodes"`},
		{"event deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Events("default").Delete(ctx, "any", metav1.DeleteOptions{})
		}, `cannot delete resource "events"`},
		{"policy deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.AdmissionregistrationV1().ValidatingAdmissionPolicies().Delete(ctx, "gpuvet-node", metav1.DeleteOptions{})
		}, `cannot delete resource "validatingadmissionpolicies"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expectRefusal(t, tt.try(t.Context(), client), tt.refusal)
		})
	}
}

func TestNodeRightsReadTheNode(t *testing.T) {
	cluster.AddNode(t, ownNode)
	client := shipped(t, ownNode)
	if _, err := client.CoreV1().Nodes().Get(t.Context(), ownNode, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	one := metav1.ListOptions{FieldSelector: "metadata.name=" + ownNode}
	if _, err := client.CoreV1().Nodes().List(t.Context(), one); err != nil {
		t.Error(err)
	}
	watch, err := client.CoreV1().Nodes().Watch(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	watch.Stop()
}

// A policy with an expression that does not fit the type of its object still
// works until the day it does not.
func TestNodeRightsPoliciesHaveNoTypeWarnings(t *testing.T) {
	for _, name := range []string{"gpuvet-node", "gpuvet-node-status", "gpuvet-event", "gpuvet-slice", "gpuvet-operator"} {
		var policy *admissionv1.ValidatingAdmissionPolicy
		kube.Eventually(t, time.Minute, func() (err error) {
			policy, err = cluster.Admin().AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), name, metav1.GetOptions{})
			if err == nil && policy.Status.TypeChecking == nil {
				err = fmt.Errorf("types of policy %s are not checked yet", name)
			}
			return err
		})
		for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
			t.Errorf("%s: %s: %s", name, warning.FieldRef, warning.Warning)
		}
	}
}

// shipped is a client with a token of the shipped account.
func shipped(t *testing.T, node string) kubernetes.Interface {
	t.Helper()
	client, err := cluster.As(t.Context(), kube.Shipped, node)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// addFencedNode adds a node that bears a label and a taint of somebody else.
func addFencedNode(t *testing.T, name string) {
	t.Helper()
	cluster.AddNode(t, name)
	patch := `{"metadata":{"labels":{"example.com/pool":"training"}},"spec":{"taints":[{"key":"example.com/fence","effect":"NoSchedule"}]}}`
	_, err := cluster.Admin().CoreV1().Nodes().
		Patch(t.Context(), name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// changed is the patch that makes the change to the node.
func changed(t *testing.T, node *corev1.Node, change func(*corev1.Node)) []byte {
	t.Helper()
	after := node.DeepCopy()
	change(after)
	before, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := json.Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, wanted, corev1.Node{})
	if err != nil {
		t.Fatal(err)
	}
	return patch
}

func expectRefusal(t *testing.T, err error, refusal string) {
	t.Helper()
	switch {
	case refusal == "" && err != nil:
		t.Errorf("refused: %v", err)
	case refusal != "" && err == nil:
		t.Errorf("accepted, want refusal %q", refusal)
	case refusal != "" && !strings.Contains(err.Error(), refusal):
		t.Errorf("refused with %q, want %q", err, refusal)
	}
}

func unhealthy(reason string) corev1.Taint {
	return corev1.Taint{Key: ownTaint, Value: reason, Effect: corev1.TaintEffectNoSchedule}
}

func addCondition(node *corev1.Node, kind corev1.NodeConditionType, status corev1.ConditionStatus) {
	node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
		Type: kind, Status: status, Reason: "Test", LastTransitionTime: metav1.Now(), LastHeartbeatTime: metav1.Now(),
	})
}
