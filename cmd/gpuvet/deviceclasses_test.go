package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

// decodedClasses are the classes of an output, strictly read.
func decodedClasses(t *testing.T, out string) []resourceapi.DeviceClass {
	t.Helper()
	var all []resourceapi.DeviceClass
	for document := range strings.SplitSeq(out, "\n---\n") {
		var class resourceapi.DeviceClass
		if err := yaml.UnmarshalStrict([]byte(document), &class); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		all = append(all, class)
	}
	return all
}

func TestDeviceClassesAreThoseThatShip(t *testing.T) {
	out := output(t, "", "deviceclasses")
	shipped, err := os.ReadFile("../../deploy/dra/classes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(shipped), out); diff != "" {
		t.Errorf("differs from deploy/dra/classes.yaml (-want +got):\n%s", diff)
	}
	var names []string
	for _, class := range decodedClasses(t, out) {
		names = append(names, class.Name)
		if class.APIVersion != "resource.k8s.io/v1" || class.Kind != "DeviceClass" || class.Spec.ExtendedResourceName != nil {
			t.Errorf("%s is a %s %s for %v, want a DeviceClass for no extended resource", class.Name, class.APIVersion, class.Kind, class.Spec.ExtendedResourceName)
		}
	}
	want := []string{"gpu.gpuvet.dev", "mig.gpuvet.dev", "gpu-small.gpuvet.dev", "gpu-medium.gpuvet.dev", "gpu-large.gpuvet.dev", "diagnostics.gpuvet.dev"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("classes (-want +got):\n%s", diff)
	}
}

// classesServer is an API server that has some DeviceClasses, and the kubeconfig that
// leads there.
func classesServer(t *testing.T, status int, classes ...resourceapi.DeviceClass) (kubeconfig string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/resource.k8s.io/v1/deviceclasses" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(resourceapi.DeviceClassList{
			TypeMeta: metav1.TypeMeta{APIVersion: "resource.k8s.io/v1", Kind: "DeviceClassList"}, Items: classes,
		})
	}))
	t.Cleanup(server.Close)
	config := api.NewConfig()
	config.Clusters["test"] = &api.Cluster{Server: server.URL}
	config.Contexts["test"] = &api.Context{Cluster: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func classFor(name, extended string) resourceapi.DeviceClass {
	class := resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if extended != "" {
		class.Spec.ExtendedResourceName = &extended
	}
	return class
}

func TestExtendedResourceIsThatOfWholeGPUsAlone(t *testing.T) {
	// Its own class may have the name already: then nothing changes.
	kubeconfig := classesServer(t, http.StatusOK,
		classFor("gpu.gpuvet.dev", "nvidia.com/gpu"), classFor("gpu.nvidia.com", ""), classFor("gpu.intel.com", "intel.com/gpu"))
	plain := decodedClasses(t, output(t, "", "deviceclasses"))
	got := decodedClasses(t, output(t, "", "deviceclasses", "--extended-resource-name", "nvidia.com/gpu", "--kubeconfig", kubeconfig))
	plain[0].Spec.ExtendedResourceName = new("nvidia.com/gpu")
	if diff := cmp.Diff(plain, got); diff != "" {
		t.Errorf("classes (-want +got):\n%s", diff)
	}
}

func TestExtendedResourceIsFoundByKubectlsOwnKubeconfig(t *testing.T) {
	t.Setenv("KUBECONFIG", classesServer(t, http.StatusOK))
	out := output(t, "", "deviceclasses", "--extended-resource-name", "nvidia.com/gpu")
	if !strings.Contains(out, "\n  extendedResourceName: nvidia.com/gpu\n") {
		t.Errorf("no class has the name:\n%s", out)
	}
}

// Without a name to look for, no cluster is asked.
func TestKubeconfigIsForAnExtendedResource(t *testing.T) {
	refused(t, []string{"deviceclasses", "--kubeconfig", "/none"}, "--kubeconfig /none: expected --extended-resource-name with it")
}

func TestExtendedResourceIsRefused(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	taken := classesServer(t, http.StatusOK, classFor("a.example.com", "example.com/a"), classFor("gpu.nvidia.com", "nvidia.com/gpu"))
	for _, tt := range []struct {
		name, resource string
		args           []string
		code           int
		want           string
	}{
		{
			"another class has it", "nvidia.com/gpu",
			[]string{"--kubeconfig", taken},
			exitError,
			"gpuvet: DeviceClass gpu.nvidia.com has the extended resource name nvidia.com/gpu already: the scheduler would take the newer class, and every such pod",
		},
		{
			"the list is refused", "nvidia.com/gpu",
			[]string{"--kubeconfig", classesServer(t, http.StatusForbidden)},
			exitError,
			"gpuvet: whether another DeviceClass has the name nvidia.com/gpu cannot be known: list DeviceClasses: ",
		},
		{
			"no cluster to ask", "nvidia.com/gpu", nil, exitInput,
			"gpuvet: whether another DeviceClass has the name nvidia.com/gpu cannot be known without a cluster to ask: expected --kubeconfig",
		},
		{"no such kubeconfig", "nvidia.com/gpu", []string{"--kubeconfig", "/no/such/file"}, exitInput, "gpuvet: --kubeconfig: "},
		{"empty name", "", []string{"--kubeconfig", taken}, exitInput, `gpuvet: --extended-resource-name "": expected DOMAIN/NAME`},
		{"name without domain", "gpu", []string{"--kubeconfig", taken}, exitInput, `gpuvet: --extended-resource-name "gpu": expected DOMAIN/NAME`},
		{"name of Kubernetes itself", "deviceclass.resource.kubernetes.io/gpu.gpuvet.dev", []string{"--kubeconfig", taken}, exitInput, "not of kubernetes.io"},
		{"two lines", "nvidia.com/gpu\n  x: y", []string{"--kubeconfig", taken}, exitInput, "expected DOMAIN/NAME"},
		{"name of a quota", "requests.nvidia.com/gpu", []string{"--kubeconfig", taken}, exitInput, "expected DOMAIN/NAME"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := gpuvet(t, "", append([]string{"deviceclasses", "--extended-resource-name", tt.resource}, tt.args...)...)
			if o.code != tt.code || !strings.Contains(o.err, tt.want) || o.out != "" {
				t.Errorf("code %d, want %d; output %q; error\n%swant\n%s", o.code, tt.code, o.out, o.err, tt.want)
			}
		})
	}
}
