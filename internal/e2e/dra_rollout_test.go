package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// One daemon follows on the other: what is published and what is held is as if nothing
// had happened.
func TestDRARollout(t *testing.T) {
	t.Parallel()
	s, o := offer(t, daemon.SetOptions{Fleet: daemon.NewFleet(4)})
	o.use(t, "rollout-before", o.oneOf(0))
	before := cluster.AwaitRunning(t, "rollout-before")
	o.lose(t, 1)
	o.awaitTaint(t, 1, lostTaint)
	seen, node := cluster.WatchSlices(t, o.node), cluster.WatchNode(t, o.node)

	created := make(chan struct{})
	go func() { // while one daemon gives way to the other
		defer close(created)
		pause(t.Context(), time.Second)
		o.use(t, "rollout-meanwhile", kube.Devices(gpuClass, 1))
	}()
	handedOver := s.Rollout(t)
	<-created
	cluster.AwaitRunning(t, "rollout-meanwhile")
	o.awaitOffered(t)
	t.Logf("taken over %s after the old daemon was to end", handedOver.TakenOver.Sub(handedOver.Stopping))
	pause(t.Context(), 3*time.Second) // the new one has looked around

	o.expectHeld(t, "rollout-before", "rollout-meanwhile")
	for _, version := range seen.Versions(t) {
		t.Errorf("slice %s was written at %s, or is gone: %t", version.Slice.Name, version.At.Format(time.TimeOnly), version.Deleted)
	}
	for _, version := range node.Versions(t) {
		if taints := ownTaints(version.Node); len(taints) > 0 {
			t.Errorf("the node was tainted for one GPU at %s: %v", version.At.Format(time.TimeOnly), taints)
		}
	}
	if now := cluster.AwaitRunning(t, "rollout-before"); now.UID != before.UID || now.Status.ContainerStatuses[0].RestartCount > 0 {
		t.Error("the pod from before did not run on")
	}
	// The new daemon gives back what the old one has given.
	endPod(t, "rollout-before")
	o.expectHeld(t, "rollout-meanwhile")
}

// Two that give out the same GPUs would give them out twice.
func TestDRAWithdrawsBeforeAnother(t *testing.T) { //nolint:tparallel // the subtests share one daemon
	t.Parallel()
	s, o := offer(t, daemon.SetOptions{Fleet: daemon.NewFleet(2)})
	withdrawn := func(t *testing.T, cause string) {
		t.Helper()
		kube.Eventually(t, soon, func() error {
			if devices := o.devices(t); len(devices) > 0 {
				return fmt.Errorf("%d devices are still published", len(devices))
			}
			status := o.status(t, s.Command)
			if status.Mode != "withheld" || !strings.Contains(status.Cause, cause) {
				return fmt.Errorf("mode is %s (%s), want withheld for %q", status.Mode, status.Cause, cause)
			}
			return nil
		})
	}
	nvidia := func(driver string) *resourceapi.ResourceSlice {
		slice := sliceOf(o.node)
		slice.Spec.Driver = driver
		slice.Spec.Devices[0].Name = "gpu-0"
		return slice
	}

	t.Run("driver for domains beside us", func(t *testing.T) {
		cluster.PublishSlice(t, nvidia("compute-domain.nvidia.com"))
		pause(t.Context(), 2*time.Second)
		o.awaitOffered(t)
		if status := o.status(t, s.Command); status.Mode != "taints" || status.Devices != 2 || !status.Registered {
			t.Errorf("status is %+v, want both devices published with taints", status)
		}
	})

	t.Run("driver", func(t *testing.T) {
		rival := cluster.PublishSlice(t, nvidia("gpu.nvidia.com"))
		withdrawn(t, "the driver gpu.nvidia.com publishes 1 devices")
		// No device is fenced any more, so a fault is the node's.
		o.lose(t, 1)
		o.awaitFenced(t, 1)
		if err := cluster.Admin().ResourceV1().ResourceSlices().Delete(t.Context(), rival.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		o.awaitOffered(t)
		o.awaitTaint(t, 1, lostTaint)
		o.awaitUnfencedAgain(t)
		o.recoverByHand(t, s, 1)
	})

	t.Run("device plugin", func(t *testing.T) {
		offer := func(value string) {
			t.Helper()
			patch := fmt.Sprintf(`{"status":{"capacity":{"nvidia.com/gpu":%[1]s},"allocatable":{"nvidia.com/gpu":%[1]s}}}`, value)
			_, err := cluster.Admin().CoreV1().Nodes().Patch(t.Context(), o.node, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
			if err != nil {
				t.Fatal(err)
			}
		}
		offer(`"2"`)
		withdrawn(t, "a device plugin offers 2 GPUs")
		offer("null")
		o.awaitOffered(t)
	})
}

// awaitUnfencedAgain waits until no taint of ours is on the node.
func (o *offering) awaitUnfencedAgain(t *testing.T) {
	t.Helper()
	kube.Eventually(t, time.Minute, func() error {
		if taints := ownTaints(read(t, o.node)); len(taints) > 0 {
			return fmt.Errorf("taints of the node are %v, want none of ours", taints)
		}
		return nil
	})
}

// The devices of a container come from the node's own CDI specs, those that NVIDIA's
// Container Toolkit writes. Until they are there, nothing is published.
func TestDRADelegatesDevices(t *testing.T) {
	t.Parallel()
	fleet := daemon.NewFleet(1)
	set := daemon.StartSet(t, cluster, daemon.SetOptions{Fleet: fleet, Config: daemon.Config{DRA: "{cdi: delegate}"}})
	s := &shippedSet{Set: set, watched: watched{daemon: set, node: kube.NodeName, fleet: fleet}}
	s.AwaitReady(t)
	s.awaitHealthy(t)
	kube.Eventually(t, soon, func() error {
		waiting, err := s.Value(t.Context(), "gpuvet_dra_devices", "state", "waiting")
		if err == nil && waiting != 1 {
			err = fmt.Errorf("%v devices wait for a CDI spec, want 1", waiting)
		}
		return err
	})
	if devices := s.devices(t); len(devices) > 0 {
		t.Errorf("published without a CDI spec: %v", devices)
	}

	writeNVIDIASpec(t, fleet[0])
	o := offered(t, s.watched)
	o.useOne(t, "delegated")
	in := cluster.Inside(t, cluster.AwaitRunning(t, "delegated"))
	for path, want := range map[string]string{"/dev/nvidiactl": "195:255", "/dev/nvidia0": "195:7"} {
		if in.Devices[path] != want {
			t.Errorf("%s is %q in the container, want %s", path, in.Devices[path], want)
		}
	}
	for name, want := range map[string]string{"FROM_TOOLKIT": "yes", "GPUVET_GPU_UUIDS": fleet[0].UUID} {
		if in.Env[name] != want {
			t.Errorf("%s is %q in the container, want %s", name, in.Env[name], want)
		}
	}
}

// writeNVIDIASpec writes what nvidia-ctk does of a node's one GPU, as far as it matters
// here. It goes with the test. The device nodes lie elsewhere than in /dev, which is the
// machine's.
func writeNVIDIASpec(t *testing.T, gpu daemon.GPU) {
	t.Helper()
	dir, err := cluster.Folder("nvidia-devices")
	if err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"nvidiactl": 255, "nvidia0": 7} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(195, minor))); err != nil {
			t.Fatalf("make device: %v", err)
		}
	}
	spec := fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu",
		"containerEdits": {"env": ["FROM_TOOLKIT=yes"], "deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": %q}]},
		"devices": [{"name": %q, "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": %q}]}}]}`,
		filepath.Join(dir, "nvidiactl"), gpu.UUID, filepath.Join(dir, "nvidia0"))
	path := filepath.Join(kube.CDIDir, "nvidia.json")
	if err := os.WriteFile(path, []byte(spec), 0o644); err != nil {
		t.Fatalf("write CDI spec: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Errorf("remove CDI spec: %v", err)
		}
	})
}
