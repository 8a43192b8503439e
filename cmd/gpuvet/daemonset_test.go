package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/yaml"
)

// manifests decodes the objects of a file, and refuses keys that they do not have.
func manifests(t *testing.T, path string, into ...any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(content, []byte("\n---\n"))
	if len(documents) != len(into) {
		t.Fatalf("%s has %d objects, want %d", path, len(documents), len(into))
	}
	for i, document := range documents {
		if err := yaml.UnmarshalStrict(document, into[i]); err != nil {
			t.Fatalf("%s, object %d: %v", path, i, err)
		}
	}
}

func shippedDaemonSet(t *testing.T) (appsv1.DaemonSet, corev1.ResourceQuota) {
	t.Helper()
	var set appsv1.DaemonSet
	var quota corev1.ResourceQuota
	manifests(t, "../../deploy/daemonset.yaml", &set, &quota)
	if len(set.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("%d containers, want 1", len(set.Spec.Template.Spec.Containers))
	}
	return set, quota
}

func TestDaemonSetIsOneThatTheAPITakes(t *testing.T) {
	set, quota := shippedDaemonSet(t)
	if set.APIVersion != "apps/v1" || set.Kind != "DaemonSet" || quota.APIVersion != "v1" || quota.Kind != "ResourceQuota" {
		t.Errorf("objects are %s %s and %s %s", set.APIVersion, set.Kind, quota.APIVersion, quota.Kind)
	}
	selector := labels.SelectorFromSet(set.Spec.Selector.MatchLabels)
	if !selector.Matches(labels.Set(set.Spec.Template.Labels)) || selector.Empty() {
		t.Errorf("its selector %v does not select its pods", selector)
	}
	critical := []string{set.Spec.Template.Spec.PriorityClassName}
	if got := quota.Spec.ScopeSelector.MatchExpressions; len(got) != 1 || !slices.Equal(got[0].Values, critical) || quota.Namespace != set.Namespace {
		t.Errorf("the quota is for %v in %s, want %v in %s", got, quota.Namespace, critical, set.Namespace)
	}
}

func TestDaemonSetHasTheShippedIdentity(t *testing.T) {
	var namespace corev1.Namespace
	var account corev1.ServiceAccount
	manifests(t, "../../deploy/rbac/identity.yaml", &namespace, &account)
	set, _ := shippedDaemonSet(t)
	pod := set.Spec.Template.Spec
	if set.Namespace != namespace.Name || set.Namespace != account.Namespace || pod.ServiceAccountName != account.Name {
		t.Errorf("it runs as %s/%s, want %s/%s", set.Namespace, pod.ServiceAccountName, account.Namespace, account.Name)
	}
	// A token without a volume for it would be bound to no node.
	if pod.AutomountServiceAccountToken != nil || account.AutomountServiceAccountToken != nil {
		t.Error("whether the token is mounted is not left to the default, which is yes")
	}
	if got := namespace.Labels["pod-security.kubernetes.io/enforce"]; got != "privileged" {
		t.Errorf("its namespace takes %q pods, want privileged ones", got)
	}
	if c := pod.Containers[0].SecurityContext; !*c.Privileged || !*c.ReadOnlyRootFilesystem || !pod.HostPID || pod.HostNetwork {
		t.Errorf("security context %v, hostPID %v, hostNetwork %v", c, pod.HostPID, pod.HostNetwork)
	}
}

func TestDaemonSetStartsTheDaemonAsItIs(t *testing.T) {
	set, _ := shippedDaemonSet(t)
	c := set.Spec.Template.Spec.Containers[0]
	name, tag, _ := strings.Cut(c.Image, ":")
	if name == "" || tag == "" || tag == "latest" || c.ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("image %s, pulled %s: want a tag that stays, and one that may be imported", c.Image, c.ImagePullPolicy)
	}

	cmd, rest, err := rootCommand().Find(c.Args)
	if err != nil || cmd.Name() != "run" {
		t.Fatalf("arguments %q start %v (%v), want run", c.Args, cmd.Name(), err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	if len(c.Ports) != 1 || c.Ports[0].Name != "metrics" || flag("listen") != fmt.Sprintf(":%d", c.Ports[0].ContainerPort) {
		t.Errorf("ports %v, want metrics at %s", c.Ports, flag("listen"))
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != "metrics" {
			t.Errorf("probe %s asks %v", path, probe.HTTPGet)
		}
	}

	env := map[string]corev1.EnvVar{}
	for _, e := range c.Env {
		env[e.Name] = e
	}
	if from := env["NODE_NAME"].ValueFrom; from == nil || from.FieldRef.FieldPath != "spec.nodeName" {
		t.Errorf("NODE_NAME comes from %v, want the pod's spec.nodeName", from)
	}
	mounted := map[string]bool{}
	for _, m := range c.VolumeMounts {
		mounted[m.MountPath] = true
	}
	if !mounted[env["HOST_ROOT"].Value] {
		t.Errorf("HOST_ROOT is %q, which is not mounted", env["HOST_ROOT"].Value)
	}
	if os.Geteuid() == 0 { // the defaults of others are elsewhere
		for _, path := range []string{defaultStateDir(), strings.TrimSuffix(defaultSocket(), "/gpuvet.sock"), strings.TrimSuffix(defaultConfig, "/gpuvet.yaml")} {
			if !mounted[path] {
				t.Errorf("%s, which the daemon uses, is not mounted", path)
			}
		}
	}
}

func TestDaemonSetWritesToTheNodeOnlyItsOwnFolders(t *testing.T) {
	set, _ := shippedDaemonSet(t)
	pod := set.Spec.Template.Spec
	type mount struct {
		Host, In    string
		ReadOnly    bool
		Propagation corev1.MountPropagationMode
	}
	sources := map[string]string{}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			sources[v.Name] = v.HostPath.Path
		}
	}
	var got []mount
	for _, m := range pod.Containers[0].VolumeMounts {
		host, found := sources[m.Name]
		if !found {
			continue
		}
		delete(sources, m.Name)
		entry := mount{host, m.MountPath, m.ReadOnly, ""}
		if m.MountPropagation != nil {
			entry.Propagation = *m.MountPropagation
		}
		got = append(got, entry)
	}
	want := []mount{
		{"/dev", "/dev", false, ""},
		{"/", "/host", true, corev1.MountPropagationHostToContainer},
		{"/var/lib/gpuvet", "/var/lib/gpuvet", false, ""},
		{"/run/gpuvet", "/run/gpuvet", false, ""},
		// The kubelet and the runtime are told paths, so these are the same inside.
		{"/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins", false, ""},
		{"/var/lib/kubelet/plugins_registry", "/var/lib/kubelet/plugins_registry", false, ""},
		{"/var/run/cdi", "/var/run/cdi", false, ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mounts of the node's folders (-want +got):\n%s", diff)
	}
	if len(sources) > 0 {
		t.Errorf("volumes that nobody mounts: %v", slices.Collect(maps.Keys(sources)))
	}
	if path := pod.Containers[0].TerminationMessagePath; strings.HasPrefix(path, "/dev") || path == "" {
		t.Errorf("the termination message is in %q, which makes a file in the node's /dev", path)
	}
}

func TestDaemonSetFindsGPUNodes(t *testing.T) {
	set, _ := shippedDaemonSet(t)
	for _, c := range []struct {
		name string
		node labels.Set
		want bool
	}{
		{"GPU Operator", labels.Set{"nvidia.com/gpu.present": "true"}, true},
		{"Node Feature Discovery", labels.Set{"feature.node.kubernetes.io/pci-0302_10de.present": "true"}, true},
		{"GKE", labels.Set{"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}, true},
		{"AKS", labels.Set{"kubernetes.azure.com/accelerator": "nvidia"}, true},
		{"EKS with Karpenter", labels.Set{"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"}, true},
		{"labelled by hand", labels.Set{"gpuvet.dev/watch": "true"}, true},
		{"no GPU", labels.Set{"nvidia.com/gpu.present": "false"}, false},
		{"another vendor's GPU", labels.Set{"karpenter.k8s.aws/instance-gpu-manufacturer": "amd"}, false},
		{"no label", labels.Set{}, false},
	} {
		if got := schedules(t, set.Spec.Template.Spec, c.node); got != c.want {
			t.Errorf("%s: it runs there: %v, want %v", c.name, got, c.want)
		}
	}
	for _, taint := range []corev1.Taint{
		{Key: "gpuvet.dev/unhealthy", Value: "GPULost", Effect: corev1.TaintEffectNoSchedule},
		{Key: "nvidia.com/gpu", Value: "present", Effect: corev1.TaintEffectNoSchedule},
		{Key: "sku", Value: "gpu", Effect: corev1.TaintEffectNoExecute},
		{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoExecute},
	} {
		if !slices.ContainsFunc(set.Spec.Template.Spec.Tolerations, func(t corev1.Toleration) bool {
			return t.TolerationSeconds == nil && t.Operator == corev1.TolerationOpExists &&
				(t.Key == "" || t.Key == taint.Key) && (t.Effect == "" || t.Effect == taint.Effect)
		}) {
			t.Errorf("taint %v keeps it away", taint)
		}
	}
}

// schedules tells whether the required node affinity has a term for a node.
func schedules(t *testing.T, pod corev1.PodSpec, node labels.Set) bool {
	t.Helper()
	operators := map[corev1.NodeSelectorOperator]selection.Operator{
		corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpExists: selection.Exists,
	}
	terms := pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool {
		for _, e := range term.MatchExpressions {
			r, err := labels.NewRequirement(e.Key, operators[e.Operator], e.Values)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Matches(node) {
				return false
			}
		}
		return len(term.MatchExpressions) > 0
	})
}
