package e2e

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"gpuvet.dev/internal/e2e/kube"
)

// The examples of deploy/dra/claims, each with devices that it is meant for. That they
// are well-formed is seen elsewhere, by version.

func TestShippedClaimsAreMet(t *testing.T) {
	for node, gpus := range map[string]string{
		"claims-whole": "{count: 8, profile: h100}",
		"claims-mig":   "[{profile: a100, mig: [3g.40gb, 3g.40gb]}, {profile: a100, mig: [3g.40gb, 2g.20gb, 1g.10gb, 1g.10gb]}]",
	} {
		cluster.AddNode(t, node)
		publishSlices(t, cluster, node, gpus)
	}
	templates := shippedTemplates(t)
	for _, tt := range []struct {
		template, node string
		devices        int
		same           resourceapi.QualifiedName // attribute that they have in common
	}{
		{template: "gpu", node: "claims-whole", devices: 1},
		{template: "medium", node: "claims-whole", devices: 1},
		{template: "at-least-70", node: "claims-whole", devices: 1},
		{template: "one-root", node: "claims-whole", devices: 2, same: "resource.kubernetes.io/pcieRoot"},
		{template: "one-numa-node", node: "claims-whole", devices: 4, same: "resource.kubernetes.io/numaNode"},
		{template: "eight", node: "claims-whole", devices: 8, same: "productName"},
		{template: "mig", node: "claims-mig", devices: 1, same: "profile"},
		{template: "mig-pair", node: "claims-mig", devices: 2, same: "parentUUID"},
	} {
		t.Run(tt.template, func(t *testing.T) {
			template, ok := templates[tt.template]
			if !ok {
				t.Fatal("no such template ships")
			}
			delete(templates, tt.template)
			cluster.CreateClaimTemplate(t, tt.template, template.Spec.Spec)
			cluster.CreatePod(t, kube.Pod{Name: "claims", Node: tt.node, ClaimTemplate: tt.template})
			defer giveBack(t, cluster, "claims")
			got := kube.Allocated(cluster.AwaitAllocated(t, "claims"))
			if len(got) != tt.devices {
				t.Errorf("it has %v, want %d", got, tt.devices)
			}
			if tt.same == "" {
				return
			}
			attributes := map[string]resourceapi.DeviceAttribute{}
			for _, device := range cluster.Slices(t, tt.node)[0].Spec.Devices {
				if value, ok := device.Attributes[tt.same]; ok {
					attributes[device.Name] = value
				}
			}
			for _, name := range got {
				value, ok := attributes[name]
				if diff := cmp.Diff(attributes[got[0]], value); diff != "" || !ok {
					t.Errorf("%s has %s: %t; it is that of %s (-want +got):\n%s", name, tt.same, ok, got[0], diff)
				}
			}
		})
	}
	delete(templates, "diagnostics") // has a test of its own
	for name := range templates {
		t.Errorf("template %s ships, and is not tried", name)
	}
}

// Whoever looks into a fault gets every device, the one in use and the sick one too.
// The label of the namespace alone allows it.
func TestDiagnosticsReachEveryDevice(t *testing.T) {
	const node = "diagnostics"
	cluster.AddNode(t, node)
	publishSlices(t, cluster, node, "{count: 2, profile: h100}", "{at: 0s, gpu: 1, xid: 79}")
	spec := shippedTemplates(t)["diagnostics"].Spec.Spec
	cluster.CreateClaimTemplate(t, "user", kube.Devices("gpu.gpuvet.dev", 1))
	cluster.CreatePod(t, kube.Pod{Name: "user", Node: node, ClaimTemplate: "user"})
	defer giveBack(t, cluster, "user")
	cluster.AwaitAllocated(t, "user")

	// Helpers work in namespace default, and other tests have no use for the label.
	label := func(value string) {
		t.Helper()
		if _, err := cluster.Kubectl(t.Context(), "label", "namespace", "default", resourceapi.DRAAdminNamespaceLabelKey+value); err != nil {
			t.Fatal(err)
		}
	}
	label("=true")
	defer label("-")
	cluster.CreateClaimTemplate(t, "diagnostics", spec)
	cluster.CreatePod(t, kube.Pod{Name: "diagnostics", Node: node, ClaimTemplate: "diagnostics"})
	if got := kube.Allocated(cluster.AwaitAllocated(t, "diagnostics")); len(got) != 2 {
		t.Errorf("it has %v, want both", got)
	}
	if err := cluster.Admin().CoreV1().Pods("default").Delete(t.Context(), "diagnostics", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// shippedTemplates are the claim templates of deploy/dra/claims by name.
func shippedTemplates(t *testing.T) map[string]resourceapi.ResourceClaimTemplate {
	t.Helper()
	paths, err := filepath.Glob("../../deploy/dra/claims/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d files with claims: %v", len(paths), err)
	}
	templates := map[string]resourceapi.ResourceClaimTemplate{}
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		documents := yaml.NewYAMLOrJSONDecoder(file, 4096)
		for {
			var template resourceapi.ResourceClaimTemplate
			if err := documents.Decode(&template); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if template.Kind == "ResourceClaimTemplate" {
				templates[template.Name] = template
			}
		}
	}
	return templates
}
