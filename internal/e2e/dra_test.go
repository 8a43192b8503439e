package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

const gpuClass = "gpu.gpuvet.dev"

// offering is the node that has a kubelet, with a daemon that offers its GPUs.
type offering struct{ watched }

// offer starts the DaemonSet, has it offer the GPUs of a fleet, and waits until the API
// server and the kubelet know of them.
func offer(t *testing.T, o daemon.SetOptions) (*shippedSet, *offering) {
	t.Helper()
	if o.Config.DRA == "" {
		o.Config.DRA = "{enabled: auto}"
	}
	set := daemon.StartSet(t, cluster, o)
	s := &shippedSet{Set: set, watched: watched{daemon: set, node: kube.NodeName, fleet: o.Fleet}}
	s.AwaitReady(t)
	return s, offered(t, s.watched)
}

// offered waits until the GPUs can be had. At the end of the test, after its pods are
// gone, nothing may be held.
func offered(t *testing.T, w watched) *offering {
	t.Helper()
	o := &offering{w}
	o.awaitHealthy(t)
	o.awaitOffered(t)
	t.Cleanup(func() {
		if !t.Failed() {
			o.awaitNothingHeld(t)
		}
	})
	return o
}

func (o *offering) awaitOffered(t *testing.T) {
	t.Helper()
	kube.Eventually(t, time.Minute, func() error {
		if devices := o.devices(t); len(devices) != len(o.fleet) {
			return fmt.Errorf("%d devices of %s are published, want %d", len(devices), o.node, len(o.fleet))
		}
		registered, err := o.daemon.Value(t.Context(), "gpuvet_dra_registered")
		if err == nil && registered != 1 {
			err = errors.New("the kubelet does not know the driver")
		}
		return err
	})
}

// devices are those of our driver that are published for the node, by name.
func (w watched) devices(t *testing.T) map[string]resourceapi.Device {
	t.Helper()
	return published(t, cluster, w.node)
}

func published(t *testing.T, c *kube.Cluster, node string) map[string]resourceapi.Device {
	t.Helper()
	found := map[string]resourceapi.Device{}
	for _, slice := range c.Slices(t, node) {
		if slice.Spec.Driver == ownDriver {
			for _, device := range slice.Spec.Devices {
				found[device.Name] = device
			}
		}
	}
	return found
}

// awaitTaint waits until a GPU has the taint as "key=value:effect", and no other; none
// if that is empty.
func (w watched) awaitTaint(t *testing.T, gpu int, want string) {
	t.Helper()
	// Good news may wait for the budget.
	kube.Eventually(t, time.Minute, func() error {
		device, ok := w.devices(t)[w.fleet[gpu].Device()]
		if got := taintsOf(device); !ok || got != want {
			return fmt.Errorf("GPU %d is published: %v, its taints are %q, want %q", gpu, ok, got, want)
		}
		return nil
	})
}

func taintsOf(device resourceapi.Device) string {
	var all []string
	for _, taint := range device.Taints {
		all = append(all, fmt.Sprintf("%s=%s:%s", taint.Key, taint.Value, taint.Effect))
	}
	return strings.Join(all, " ")
}

// awaitNothingHeld waits until neither the daemon nor the folder of CDI specs knows of a
// claim.
func (o *offering) awaitNothingHeld(t *testing.T) {
	t.Helper()
	if err := afterTest(t, o.nothingHeld); err != nil {
		t.Errorf("after the test: %v", err)
	}
}

// afterTest polls as [kube.Eventually] does, for a minute, while a test is tidied up: its
// own context has ended by then.
func afterTest(t *testing.T, condition func(context.Context) error) error {
	t.Helper()
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer stop()
	for {
		err := condition(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func (o *offering) nothingHeld(ctx context.Context) error {
	for _, state := range []string{"prepared", "intended"} {
		held, err := o.daemon.Value(ctx, "gpuvet_dra_claims", "state", state)
		if err != nil {
			return err
		}
		if held != 0 {
			return fmt.Errorf("%v claims are %s, want none", held, state)
		}
	}
	if specs := claimSpecs(); len(specs) > 0 {
		return fmt.Errorf("CDI specs of claims stay: %v", specs)
	}
	return nil
}

// claimSpecs are the files that our driver has written for containers.
func claimSpecs() []string {
	found, _ := filepath.Glob(filepath.Join(kube.CDIDir, "*"+ownDriver+"*"))
	return found
}

// use creates a pod with devices of a claim made for it, which goes with the test. It
// ends as pods do, and not by force.
func (o *offering) use(t *testing.T, name string, spec resourceapi.ResourceClaimSpec) {
	t.Helper()
	cluster.CreateClaimTemplate(t, name, spec)
	cluster.CreatePod(t, kube.Pod{Name: name, Node: o.node, ClaimTemplate: name})
	t.Cleanup(func() { endPod(t, name) })
}

// useOne is use for one whole GPU, and returns which one the running pod has.
func (o *offering) useOne(t *testing.T, name string) int {
	t.Helper()
	o.use(t, name, kube.Devices(gpuClass, 1))
	cluster.AwaitRunning(t, name)
	return o.held(t, name)[0]
}

// held are the GPUs that were allocated to the pod's claim.
func (o *offering) held(t *testing.T, pod string) []int {
	t.Helper()
	var gpus []int
	for _, device := range kube.Allocated(cluster.AwaitAllocated(t, pod)) {
		gpus = append(gpus, slices.IndexFunc(o.fleet, func(gpu daemon.GPU) bool { return gpu.Device() == device }))
	}
	return gpus
}

// endPod deletes a pod with a moment of grace and waits until it is gone, and so its
// claim given back.
func endPod(t *testing.T, name string) {
	t.Helper()
	pods := cluster.Admin().CoreV1().Pods("default")
	grace := metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}
	err := pods.Delete(context.WithoutCancel(t.Context()), name, grace)
	if err == nil {
		err = afterTest(t, func(ctx context.Context) error {
			_, err := pods.Get(ctx, name, metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err == nil:
				err = errors.New("it is still there")
			}
			return err
		})
	}
	if err != nil && !apierrors.IsNotFound(err) { // the test may have ended it
		t.Errorf("end pod %s: %v", name, err)
	}
}

// recoverByHand declares the faults of a GPU over and waits until it can be had again.
func (o *offering) recoverByHand(t *testing.T, set *shippedSet, gpu int) {
	t.Helper()
	if out, code := set.Command(t, "clear", o.fleet[gpu].PCI); code != 0 {
		t.Fatalf("gpuvet clear ends with %d:\n%s", code, out)
	}
	o.awaitTaint(t, gpu, "")
}

// podEvents are the events about a pod of a reason, as reporter and message.
func podEvents(t *testing.T, pod, reason string) []string {
	t.Helper()
	list, err := cluster.Admin().CoreV1().Events("default").List(t.Context(), metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod + ",reason=" + reason,
	})
	if err != nil {
		t.Fatalf("list events: %v", err)
	}
	var found []string
	for _, event := range list.Items {
		found = append(found, event.ReportingController+": "+event.Message)
	}
	return found
}

// awaitPodEvent waits for an event about a pod that says each of the words.
func awaitPodEvent(t *testing.T, pod, reason string, words ...string) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		events := podEvents(t, pod, reason)
		for _, event := range events {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(event, word) }) {
				return nil
			}
		}
		return fmt.Errorf("pod %s has no event %s with %q: %q", pod, reason, words, events)
	})
}

// fleetOf is a fleet with these amounts of memory.
func fleetOf(memory ...string) daemon.Fleet {
	fleet := daemon.NewFleet(len(memory))
	for i := range fleet {
		fleet[i].Memory = memory[i]
	}
	return fleet
}

// A pod gets the GPU that was chosen for it, and no other pod the same one.
func TestDRAGivesGPUsToPods(t *testing.T) { //nolint:tparallel // the subtests share one daemon
	t.Parallel()
	_, o := offer(t, daemon.SetOptions{Fleet: fleetOf("24Gi", "24Gi", "80Gi", "80Gi", "80Gi", "80Gi", "141Gi", "141Gi")})

	t.Run("environment", func(t *testing.T) {
		gpu := o.useOne(t, "environment")
		pod := cluster.AwaitRunning(t, "environment")
		in, want := cluster.Inside(t, pod), o.fleet[gpu]
		variable := "GPUVET_DEVICE_" + strings.ToUpper(strings.ReplaceAll(want.Device(), "-", "_"))
		for name, value := range map[string]string{"GPUVET_GPU_UUIDS": want.UUID, variable: want.UUID, "NVIDIA_VISIBLE_DEVICES": "void"} {
			if in.Env[name] != value {
				t.Errorf("%s is %q, want %q; the environment is %v", name, in.Env[name], value, slices.Sorted(maps.Keys(in.Env)))
			}
		}
		claim := cluster.AwaitAllocated(t, "environment")
		path := fmt.Sprintf("/var/run/kubernetes.io/dra-device-attributes/resourceclaimtemplates/%s/%s/%s-metadata.json", pod.Spec.ResourceClaims[0].Name, "gpu", ownDriver)
		if metadata := string(in.File(t, path)); !strings.Contains(metadata, want.UUID) || !strings.Contains(metadata, claim.Name) {
			t.Errorf("the metadata of the device do not name %s: %s", want.UUID, metadata)
		}
		health := cluster.AwaitDeviceHealth(t, "environment", corev1.ResourceHealthStatusHealthy)
		if len(health) != 1 {
			t.Errorf("health of the devices is %+v, want one", health)
		}
	})

	t.Run("memory", func(t *testing.T) {
		for class, want := range map[string][]int{
			"gpu-small.gpuvet.dev": {0, 1}, "gpu-medium.gpuvet.dev": {2, 3, 4, 5}, "gpu-large.gpuvet.dev": {6, 7},
		} {
			name, _, _ := strings.Cut(class, ".")
			o.use(t, name, kube.Devices(class, int64(len(want))))
			cluster.AwaitRunning(t, name)
			got := o.held(t, name)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("class %s gives the GPUs %v, want %v", class, got, want)
			}
		}
	})

	t.Run("extended resource", func(t *testing.T) {
		cluster.CreatePod(t, kube.Pod{Name: "extended-resource", Node: o.node, Resources: corev1.ResourceList{
			"deviceclass.resource.kubernetes.io/" + gpuClass: resource.MustParse("2"),
		}})
		t.Cleanup(func() { endPod(t, "extended-resource") })
		in := cluster.Inside(t, cluster.AwaitRunning(t, "extended-resource"))
		if uuids := strings.Split(in.Env["GPUVET_GPU_UUIDS"], ","); len(uuids) != 2 {
			t.Errorf("GPUVET_GPU_UUIDS is %q, want two", in.Env["GPUVET_GPU_UUIDS"])
		}
	})

	t.Run("exclusive", func(t *testing.T) {
		holders := map[int]string{}
		for i := range 9 {
			o.use(t, fmt.Sprintf("exclusive-%d", i), kube.Devices(gpuClass, 1))
		}
		var waits []string
		kube.Eventually(t, time.Minute, func() error {
			running := 0
			waits = nil
			for i := range 9 {
				pod, err := cluster.Admin().CoreV1().Pods("default").Get(t.Context(), fmt.Sprintf("exclusive-%d", i), metav1.GetOptions{})
				if err != nil {
					return err
				}
				if pod.Status.Phase == corev1.PodRunning {
					running++
				} else {
					waits = append(waits, pod.Name)
				}
			}
			if running != 8 {
				return fmt.Errorf("%d of nine pods run, want eight", running)
			}
			return nil
		})
		if why := cluster.AwaitUnschedulable(t, waits[0]); !strings.Contains(why, "cannot allocate all claims") {
			t.Errorf("pod %s waits for another reason: %s", waits[0], why)
		}
		for i := range 9 {
			name := fmt.Sprintf("exclusive-%d", i)
			if name == waits[0] {
				continue
			}
			gpu := o.held(t, name)[0]
			if other := holders[gpu]; other != "" {
				t.Errorf("pods %s and %s both have GPU %d", other, name, gpu)
			}
			holders[gpu] = name
			in := cluster.Inside(t, cluster.AwaitRunning(t, name))
			if in.Env["GPUVET_GPU_UUIDS"] != o.fleet[gpu].UUID {
				t.Errorf("pod %s is told of %q, and was given %s", name, in.Env["GPUVET_GPU_UUIDS"], o.fleet[gpu].UUID)
			}
		}
		endPod(t, holders[3])
		cluster.AwaitRunning(t, waits[0])
		if gpu := o.held(t, waits[0])[0]; gpu != 3 {
			t.Errorf("the ninth pod has GPU %d, want 3, which was given back", gpu)
		}
	})

	t.Run("another node's daemon", func(t *testing.T) {
		cluster.AddNode(t, "dra-neighbour")
		stranger := shipped(t, "dra-neighbour").ResourceV1().ResourceSlices()
		own := cluster.Slices(t, o.node)[0]
		err := stranger.Delete(t.Context(), own.Name, metav1.DeleteOptions{})
		expectRefusal(t, err, "with the token of node dra-neighbour")
	})
}

// status is the part of `gpuvet status -o json` that is about the driver.
func (o *offering) status(t *testing.T, command func(t testing.TB, args ...string) (string, int)) (s struct {
	Mode, Cause string
	Devices     int
	Registered  bool
},
) {
	t.Helper()
	out, code := command(t, "status", "-o", "json")
	var report struct{ DRA any }
	report.DRA = &s
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("gpuvet status ended with %d: %v\n%s", code, err, out)
	}
	return s
}
