package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/kube"
)

// What schedulers of each version make of the slices and DeviceClasses that ship. No
// driver runs here: the slices are those of `gpuvet slices`, and nodes have no kubelet.

func TestAllocationByVersion(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version string   // empty: the newest
		gates   []string // beside the defaults
		taints  bool     // whether the API server keeps them
	}{
		{name: "newest", taints: true},
		{name: "1.36", version: "1.36", taints: true},
		{name: "1.35", version: "1.35"},
		{name: "1.34", version: "1.34"},
		{name: "1.34 with taints", version: "1.34", gates: []string{"DRADeviceTaints=true"}, taints: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster
			if tt.version != "" {
				c = cluster.Emulated(t, tt.version, tt.gates...)
			}
			c.AddNode(t, "dra-node")
			publishSlices(t, c, "dra-node", "{count: 8, profile: h100}", "{at: 0s, gpu: 3, xid: 79}")
			devices := c.Slices(t, "dra-node")[0].Spec.Devices
			sick := slices.IndexFunc(devices, func(d resourceapi.Device) bool { return !*d.Attributes["healthy"].BoolValue })
			if len(devices) != 8 || sick < 0 {
				t.Fatalf("%d devices, of which number %d is sick; want 8, one of them sick", len(devices), sick)
			}
			if got := len(devices[sick].Taints) > 0; got != tt.taints {
				t.Errorf("taints of the sick device: %v; want kept: %t", devices[sick].Taints, tt.taints)
			}
			checkShippedClaims(t, c)
			everything := resourceapi.DeviceToleration{Operator: resourceapi.DeviceTolerationOpExists}
			for _, claim := range []struct {
				name string
				spec resourceapi.ResourceClaimSpec
				want int // devices; 0: it has to wait
			}{
				{"all that are healthy", kube.Devices("gpu.gpuvet.dev", 7), 7},
				{"more than are healthy", kube.Devices("gpu.gpuvet.dev", 8), 0},
				{"their tier", kube.Devices("gpu-medium.gpuvet.dev", 7), 7},
				{"a lower tier", kube.Devices("gpu-small.gpuvet.dev", 1), 0},
				{"a higher tier", kube.Devices("gpu-large.gpuvet.dev", 1), 0},
				{"a MIG device", kube.Devices("mig.gpuvet.dev", 1), 0},
				{"a sick one, tolerated", kube.Devices("diagnostics.gpuvet.dev", 8, everything), 8},
				{"a sick one", kube.Devices("diagnostics.gpuvet.dev", 8), map[bool]int{true: 0, false: 8}[tt.taints]},
			} {
				t.Run(claim.name, func(t *testing.T) {
					c.CreateClaim(t, "dra", claim.spec)
					c.CreatePod(t, kube.Pod{Name: "dra", Node: "dra-node", Claim: "dra"})
					defer giveBack(t, c, "dra")
					if claim.want == 0 {
						if why := c.AwaitUnschedulable(t, "dra"); !strings.Contains(why, "cannot allocate all claims") {
							t.Errorf("unschedulable for another reason: %s", why)
						}
						return
					}
					got := kube.Allocated(c.AwaitAllocated(t, "dra"))
					if len(got) != claim.want || claim.want < 8 && slices.Contains(got, devices[sick].Name) {
						t.Errorf("it has %v, want %d; %s is sick", got, claim.want, devices[sick].Name)
					}
				})
			}
		})
	}
}

// giveBack removes a pod, and waits until no claim has devices.
func giveBack(t *testing.T, c *kube.Cluster, pod string) {
	t.Helper()
	if err := c.Admin().CoreV1().Pods("default").Delete(t.Context(), pod, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	kube.Eventually(t, soon, func() error {
		claims, err := c.Admin().ResourceV1().ResourceClaims("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, claim := range claims.Items {
			if claim.Status.Allocation != nil {
				return fmt.Errorf("claim %s still has its devices", claim.Name)
			}
		}
		return nil
	})
}

// checkShippedClaims has the API server look at every example, strictly.
func checkShippedClaims(t *testing.T, c *kube.Cluster) {
	t.Helper()
	// What goes into a namespace can only be checked if that is there.
	diagnostics := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "gpu-diagnostics", Labels: map[string]string{resourceapi.DRAAdminNamespaceLabelKey: "true"},
	}}
	_, err := c.Admin().CoreV1().Namespaces().Create(t.Context(), diagnostics, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) { // to wait until it is gone takes seconds, and it does no harm
		t.Fatal(err)
	}
	_, err = c.Kubectl(t.Context(), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "../../deploy/dra/claims")
	if err != nil {
		t.Error(err)
	}
}

// publishSlices writes what `gpuvet slices` says of scripted GPUs to the API server, as
// the daemon of the node would.
func publishSlices(t *testing.T, c *kube.Cluster, node, gpus string, timeline ...string) {
	t.Helper()
	scenario := filepath.Join(t.TempDir(), "scenario.yaml")
	content := "gpus: " + gpus + "\n"
	if len(timeline) > 0 {
		content += "timeline:\n- " + strings.Join(timeline, "\n- ") + "\n"
	}
	if err := os.WriteFile(scenario, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	version, err := c.Admin().Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	minor := version.Minor
	if version.EmulationMinor != "" {
		minor = version.EmulationMinor
	}
	out, code := runGPUVet(t, "slices", "-o", "json", "--fake-nvml", scenario, "--after", "2s", "--node-name", node, "--kubernetes", "1."+minor)
	if code != 0 {
		t.Fatalf("gpuvet slices ended with %d: %s", code, out)
	}
	var list resourceapi.ResourceSliceList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		c.PublishSlice(t, &list.Items[i])
	}
}

// runGPUVet runs a command of the daemon's binary. The output is that of a command that
// went well, and else its error.
func runGPUVet(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	binary, err := cluster.DaemonBinary()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), binary, args...)
	var errs strings.Builder
	command.Stderr = &errs
	out, err := command.Output()
	if command.ProcessState == nil {
		t.Fatalf("run gpuvet %s: %v", args[0], err)
	}
	if err != nil {
		return errs.String(), command.ProcessState.ExitCode()
	}
	return string(out), 0
}

// The class is changed for the whole cluster, so no other test may run meanwhile.
func TestExtendedResourceIsServedByTheNamedClass(t *testing.T) {
	const node = "dra-extended"
	cluster.AddNode(t, node)
	publishSlices(t, cluster, node, "{count: 2, profile: h100}")
	admin, err := cluster.Kubeconfig("admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	ask := []string{"deviceclasses", "--extended-resource-name", "nvidia.com/gpu", "--kubeconfig", admin}

	t.Run("refused while another class has the name", func(t *testing.T) {
		classes := cluster.Admin().ResourceV1().DeviceClasses()
		rival := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu.nvidia.com"}}
		rival.Spec.ExtendedResourceName = new("nvidia.com/gpu")
		if _, err := classes.Create(t.Context(), rival, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		out, code := runGPUVet(t, ask...)
		if code != 1 || !strings.Contains(out, "DeviceClass gpu.nvidia.com has the extended resource name nvidia.com/gpu already") {
			t.Errorf("code %d, want 1: %s", code, out)
		}
		if err := classes.Delete(t.Context(), rival.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})

	named, code := runGPUVet(t, ask...)
	if code != 0 {
		t.Fatalf("gpuvet deviceclasses ended with %d: %s", code, named)
	}
	apply(t, named)
	plain, _ := runGPUVet(t, "deviceclasses")
	defer apply(t, plain)
	for _, name := range []corev1.ResourceName{"nvidia.com/gpu", "deviceclass.resource.kubernetes.io/gpu.gpuvet.dev"} {
		t.Run(strings.ReplaceAll(string(name), "/", " "), func(t *testing.T) {
			cluster.CreatePod(t, kube.Pod{Name: "extended", Node: node, Resources: corev1.ResourceList{name: resource.MustParse("2")}})
			defer giveBack(t, cluster, "extended")
			var got []string
			kube.Eventually(t, soon, func() error {
				pod, err := cluster.Admin().CoreV1().Pods("default").Get(t.Context(), "extended", metav1.GetOptions{})
				if err != nil {
					return err
				}
				if pod.Status.ExtendedResourceClaimStatus == nil {
					return fmt.Errorf("the pod has no claim: %s", kube.WhyNot(pod))
				}
				claim, err := cluster.Admin().ResourceV1().ResourceClaims("default").
					Get(t.Context(), pod.Status.ExtendedResourceClaimStatus.ResourceClaimName, metav1.GetOptions{})
				if err != nil {
					return err
				}
				if got = kube.Allocated(claim); len(got) == 0 {
					return fmt.Errorf("claim %s has no devices", claim.Name)
				}
				return nil
			})
			var want []string
			for _, device := range cluster.Slices(t, node)[0].Spec.Devices {
				want = append(want, device.Name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("devices of the pod (-want +got):\n%s", diff)
			}
		})
	}
}

// apply applies manifests as an operator does, from a pipe.
func apply(t *testing.T, manifests string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(path, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-f", path); err != nil {
		t.Fatal(err)
	}
}
