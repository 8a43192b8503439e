package e2e

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"gpuvet.dev/internal/e2e/kube"
)

const ownDriver = "gpu.gpuvet.dev"

// The slices that a node may write, and those that it may not: deploy/rbac.

func TestNodeRightsOnSlices(t *testing.T) {
	cluster.AddNode(t, ownNode)
	cluster.AddNode(t, otherNode)
	everywhere := func(s *resourceapi.ResourceSliceSpec) { s.NodeName, s.AllNodes = nil, new(true) }
	bySelector := func(s *resourceapi.ResourceSliceSpec) {
		s.NodeName, s.NodeSelector = nil, &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{ownNode}}},
		}}}
	}
	byDevice := func(s *resourceapi.ResourceSliceSpec) {
		s.NodeName, s.PerDeviceNodeSelection = nil, new(true)
		s.Devices[0].NodeName = new(ownNode)
	}
	const (
		notOwn    = "; gpuvet may write only those of the node that its token is bound to"
		notOurs   = "tried to write a ResourceSlice of driver gpu.nvidia.com; gpuvet may write only those of gpu.gpuvet.dev"
		otherPool = "tried to write a ResourceSlice of pool rights-other; gpuvet may write only those of the pool that bears the name of its node"
	)
	for _, tt := range []struct {
		name    string
		token   string // the node that the token is bound to
		change  func(*resourceapi.ResourceSliceSpec)
		refusal string // empty: accepted
	}{
		{name: "its own", token: ownNode},
		{name: "its own, with a newer generation", token: ownNode, change: func(s *resourceapi.ResourceSliceSpec) { s.Pool.Generation = 7 }},
		{
			name: "another node's", token: otherNode,
			refusal: "tried to write a ResourceSlice of node rights-own with the token of node rights-other" + notOwn,
		},
		{
			name: "another node's in its own pool", token: otherNode, change: func(s *resourceapi.ResourceSliceSpec) { s.Pool.Name = otherNode },
			refusal: "tried to write a ResourceSlice of node rights-own with the token of node rights-other" + notOwn,
		},
		{
			name:    "with an unbound token",
			refusal: "tried to write a ResourceSlice of node rights-own with a token that is bound to no node" + notOwn,
		},
		{
			name: "with an unbound token for all nodes", change: everywhere,
			refusal: "tried to write a ResourceSlice of no single node with a token that is bound to no node" + notOwn,
		},
		{
			name: "for all nodes", token: ownNode, change: everywhere,
			refusal: "tried to write a ResourceSlice of no single node with the token of node rights-own" + notOwn,
		},
		{
			name: "by a selector", token: ownNode, change: bySelector,
			refusal: "tried to write a ResourceSlice of no single node with the token of node rights-own" + notOwn,
		},
		{
			name: "by each device", token: ownNode, change: byDevice,
			refusal: "tried to write a ResourceSlice of no single node with the token of node rights-own" + notOwn,
		},
		{
			name: "of another driver", token: ownNode, change: func(s *resourceapi.ResourceSliceSpec) { s.Driver = "gpu.nvidia.com" },
			refusal: notOurs,
		},
		{
			name: "of another pool", token: ownNode, change: func(s *resourceapi.ResourceSliceSpec) { s.Pool.Name = otherNode },
			refusal: otherPool,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			slice := sliceOf(ownNode)
			if tt.change != nil {
				tt.change(&slice.Spec)
			}
			slices := shipped(t, tt.token).ResourceV1().ResourceSlices()
			dryRun := []string{metav1.DryRunAll}
			t.Run("created", func(t *testing.T) {
				_, err := slices.Create(t.Context(), slice, metav1.CreateOptions{DryRun: dryRun})
				expectRefusal(t, err, tt.refusal)
			})
			there := cluster.PublishSlice(t, slice)
			t.Run("updated", func(t *testing.T) {
				changed := there.DeepCopy()
				changed.Spec.Devices[0].Attributes = map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"healthy": {BoolValue: new(true)}}
				_, err := slices.Update(t.Context(), changed, metav1.UpdateOptions{DryRun: dryRun})
				expectRefusal(t, err, tt.refusal)
			})
			t.Run("deleted", func(t *testing.T) {
				expectRefusal(t, slices.Delete(t.Context(), there.Name, metav1.DeleteOptions{DryRun: dryRun}), tt.refusal)
			})
		})
	}
}

func TestNodeRightsTakeOwnSlicesThroughTheirLife(t *testing.T) {
	cluster.AddNode(t, ownNode)
	slices := shipped(t, ownNode).ResourceV1().ResourceSlices()
	slice, err := slices.Create(t.Context(), sliceOf(ownNode), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	slice.Spec.Devices[0].Taints = []resourceapi.DeviceTaint{{Key: "gpuvet.dev/lost", Value: "GPULost", Effect: resourceapi.DeviceTaintEffectNoExecute}}
	if slice, err = slices.Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err = slices.Get(t.Context(), slice.Name, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	own := metav1.ListOptions{FieldSelector: resourceapi.ResourceSliceSelectorNodeName + "=" + ownNode}
	if list, err := slices.List(t.Context(), own); err != nil || len(list.Items) != 1 {
		t.Errorf("it sees %v, want the slice: %v", list, err)
	}
	watch, err := slices.Watch(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	watch.Stop()
	if err := slices.Delete(t.Context(), slice.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// The daemon reads what it prepares and whose namespace it is, and changes nothing of
// how devices are given out.
func TestNodeRightsOnClaims(t *testing.T) {
	cluster.AddNode(t, ownNode)
	cluster.CreateClaim(t, "rights", kube.Devices("gpu.gpuvet.dev", 1))
	client := shipped(t, ownNode)
	if _, err := client.ResourceV1().ResourceClaims("default").Get(t.Context(), "rights", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	merge := func(subresources ...string) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().ResourceClaims("default").Patch(ctx, "rights", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{}, subresources...)
			return err
		}
	}
	for _, tt := range []struct {
		name    string
		try     func(context.Context, kubernetes.Interface) error
		refusal string
	}{
		{"claims listed", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().ResourceClaims("").List(ctx, metav1.ListOptions{})
			return err
		}, `cannot list resource "resourceclaims"`},
		{"claim created", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().ResourceClaims("default").Create(ctx, &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		}, `cannot create resource "resourceclaims"`},
		{"claim changed", merge(), `cannot patch resource "resourceclaims"`},
		{"status of claim changed", merge("status"), `cannot patch resource "resourceclaims/status"`},
		{"claim deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.ResourceV1().ResourceClaims("default").Delete(ctx, "rights", metav1.DeleteOptions{})
		}, `cannot delete resource "resourceclaims"`},
		{"class created", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().DeviceClasses().Create(ctx, &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		}, `cannot create resource "deviceclasses"`},
		{"class changed", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().DeviceClasses().Patch(ctx, "gpu.gpuvet.dev", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
			return err
		}, `cannot patch resource "deviceclasses"`},
		{"rule created", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().DeviceTaintRules().Create(ctx, &resourceapi.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		}, `cannot create resource "devicetaintrules"`},
		{"all slices deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return c.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}, `cannot deletecollection resource "resourceslices"`},
		{"slice patched", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.ResourceV1().ResourceSlices().Patch(ctx, "x", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
			return err
		}, `cannot patch resource "resourceslices"`},
		{"namespaces listed", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
			return err
		}, `cannot list resource "namespaces"`},
		{"namespace changed", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Namespaces().Patch(ctx, "default", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
			return err
		}, `cannot patch resource "namespaces"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expectRefusal(t, tt.try(t.Context(), client), tt.refusal)
		})
	}
}

// sliceOf is a slice of a node's one GPU, as the daemon of that node writes it.
func sliceOf(node string) *resourceapi.ResourceSlice {
	return &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: ownDriver, NodeName: new(node),
			Pool:    resourceapi.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "gpu-0000-3b-00-0"}},
		},
	}
}
