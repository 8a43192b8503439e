package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"gpuvet.dev/internal/e2e/kube"
)

// The rights of people, by annotations of a node: deploy/rbac/operators.yaml.

func TestNodeRightsOnRequestsByAnnotation(t *testing.T) {
	addFencedNode(t, ownNode)
	annotate(t, ownNode, `{"gpuvet.dev/clear":"3","gpuvet.dev/pause":"10m","example.com/owner":"a"}`)
	grant(t, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes", "nodes/status"}, Verbs: []string{"get", "patch", "create"}},
		"plain", "operator", "clearer", "system:node:"+ownNode)
	bind(t, "gpuvet-operator", "operator", "system:node:"+ownNode)
	grant(t, rbacv1.PolicyRule{APIGroups: []string{"gpuvet.dev"}, Resources: []string{"nodes"}, ResourceNames: []string{ownNode}, Verbs: []string{"clear"}},
		"clearer")
	users := map[string]kubernetes.Interface{
		"plain": as(t, "plain"), "operator": as(t, "operator"), "clearer": as(t, "clearer"), "admin": cluster.Admin(),
		"kubelet": as(t, "system:node:"+ownNode, "system:nodes"),
	}
	dryRun := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
	const clears, ignores = `"gpuvet.dev/clear":"3 GPULost"`, `"gpuvet.dev/ignore":"3 LinkFault for 24h"`
	// The API server begins to enforce a policy a while after it has taken it, and
	// to know of a role.
	kube.Eventually(t, time.Minute, func() error {
		patch := []byte(`{"metadata":{"annotations":{` + clears + `}}}`)
		switch _, err := users["plain"].CoreV1().Nodes().Patch(t.Context(), ownNode, types.MergePatchType, patch, dryRun); {
		case err == nil:
			return errors.New("not refused")
		case !strings.Contains(err.Error(), "gpuvet-operator"):
			return fmt.Errorf("not refused by the policy: %w", err)
		}
		_, plain := users["operator"].CoreV1().Nodes().Patch(t.Context(), ownNode, types.MergePatchType, patch, dryRun)
		_, named := users["clearer"].CoreV1().Nodes().Patch(t.Context(), ownNode, types.MergePatchType, patch, dryRun)
		return errors.Join(plain, named)
	})
	without := func(verb string) string {
		return "tried to change annotation gpuvet.dev/" + verb + " of node rights-own without the right to " + verb +
			" nodes.gpuvet.dev, which ClusterRole gpuvet-operator has"
	}
	for _, tt := range []struct {
		name, user  string
		annotations string
		status      bool
		refusal     string // empty: accepted
	}{
		{name: "operator clears", user: "operator", annotations: clears},
		{name: "operator ignores", user: "operator", annotations: ignores},
		{name: "operator pauses", user: "operator", annotations: `"gpuvet.dev/pause":"20m"`},
		{name: "operator does all at once", user: "operator", annotations: clears + "," + ignores + `,"gpuvet.dev/pause":null`},
		{name: "operator through the status", user: "operator", annotations: clears, status: true},
		{name: "administrator", user: "admin", annotations: clears + "," + ignores},
		{name: "who has one of the rights", user: "clearer", annotations: clears},
		{name: "other annotations", user: "plain", annotations: `"example.com/owner":"b","gpuvet.dev/note":"x"`},
		{name: "an annotation as it is", user: "plain", annotations: `"gpuvet.dev/pause":"10m"`},
		{name: "other annotations of the kubelet", user: "kubelet", annotations: `"example.com/owner":"b"`},

		{name: "clear added", user: "plain", annotations: clears, refusal: without("clear")},
		{name: "ignore added", user: "plain", annotations: ignores, refusal: without("ignore")},
		{name: "pause changed", user: "plain", annotations: `"gpuvet.dev/pause":"24h"`, refusal: without("pause")},
		{name: "pause taken away", user: "plain", annotations: `"gpuvet.dev/pause":null`, refusal: without("pause")},
		{name: "all taken away", user: "plain", annotations: "", refusal: without("clear")},
		{name: "through the status", user: "plain", annotations: ignores, status: true, refusal: without("ignore")},
		{name: "another than the right is to", user: "clearer", annotations: clears + "," + ignores, refusal: without("ignore")},
		{
			name: "the kubelet, though it has the role", user: "kubelet", annotations: ignores,
			refusal: "tried to change annotation gpuvet.dev/ignore of node rights-own as system:node:rights-own; it is for people to change",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			patch := `{"metadata":{"annotations":{` + tt.annotations + `}}}`
			if tt.annotations == "" {
				patch = `{"metadata":{"annotations":null}}`
			}
			var subresources []string
			if tt.status {
				subresources = []string{"status"}
			}
			_, err := users[tt.user].CoreV1().Nodes().Patch(t.Context(), ownNode, types.MergePatchType, []byte(patch), dryRun, subresources...)
			expectRefusal(t, err, tt.refusal)
		})
	}
	t.Run("labels and spec", func(t *testing.T) {
		patch := `{"metadata":{"labels":{"nvidia.com/gpu-driver-upgrade-state":"drain-required"}},"spec":{"unschedulable":true}}`
		_, err := users["plain"].CoreV1().Nodes().Patch(t.Context(), ownNode, types.MergePatchType, []byte(patch), dryRun)
		expectRefusal(t, err, "")
	})
	t.Run("right to another node", func(t *testing.T) {
		cluster.AddNode(t, otherNode)
		_, err := users["clearer"].CoreV1().Nodes().Patch(t.Context(), otherNode, types.MergePatchType, []byte(`{"metadata":{"annotations":{`+clears+`}}}`), dryRun)
		expectRefusal(t, err, "tried to change annotation gpuvet.dev/clear of node rights-other without the right")
	})
	t.Run("node that is born with it", func(t *testing.T) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "rights-new", Annotations: map[string]string{"gpuvet.dev/pause": "24h"}}}
		create := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := users["plain"].CoreV1().Nodes().Create(t.Context(), node, create)
		expectRefusal(t, err, "of node rights-new without the right to pause")
		node.Annotations = nil
		_, err = users["plain"].CoreV1().Nodes().Create(t.Context(), node, create)
		expectRefusal(t, err, "")
	})
	t.Run("the daemon's own account", func(t *testing.T) {
		_, err := shipped(t, ownNode).CoreV1().Nodes().Patch(t.Context(), ownNode, types.MergePatchType, []byte(`{"metadata":{"annotations":{`+clears+`}}}`), dryRun)
		expectRefusal(t, err, "tried to change")
	})
}

// annotate sets annotations of a node as the administrator.
func annotate(t *testing.T, node, annotations string) {
	t.Helper()
	patch := []byte(`{"metadata":{"annotations":` + annotations + `}}`)
	if _, err := cluster.Admin().CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// as is a client of a person, or of whoever has a certificate of that name.
func as(t *testing.T, user string, groups ...string) kubernetes.Interface {
	t.Helper()
	path, err := cluster.Kubeconfig(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// grant gives users a rule of a role of its own, until the test ends.
func grant(t *testing.T, rule rbacv1.PolicyRule, users ...string) {
	t.Helper()
	roles := cluster.Admin().RbacV1().ClusterRoles()
	role, err := roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-"}, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = roles.Delete(context.WithoutCancel(t.Context()), role.Name, metav1.DeleteOptions{}) })
	bind(t, role.Name, users...)
}

// bind gives users a role, until the test ends.
func bind(t *testing.T, role string, users ...string) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
	for _, user := range users {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user})
	}
	bindings := cluster.Admin().RbacV1().ClusterRoleBindings()
	made, err := bindings.Create(t.Context(), binding, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bindings.Delete(context.WithoutCancel(t.Context()), made.Name, metav1.DeleteOptions{}) })
}
