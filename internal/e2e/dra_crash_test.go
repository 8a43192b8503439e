package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// Whatever dies in the middle: no claim is lost, none is given twice, and in the end
// nothing is left. The daemon is a process, for its image has no fault points. The API
// server is the cluster's, so nothing else runs meanwhile.
func TestDRAClaimsSurvive(t *testing.T) {
	fleet := daemon.NewFleet(4)
	s := newProcess(daemon.Start(t, cluster, daemon.Options{
		Node: kube.NodeName, Scenario: fleet.Scenario(t), Config: daemon.Config{DRA: "{enabled: auto}"},
	}), fleet)
	s.AwaitReady(t)
	o := offered(t, s.watched)
	o.use(t, "witness", o.oneOf(0))
	witness := cluster.AwaitRunning(t, "witness")

	// The kubelet tries again after ten seconds and more, so there are few of these;
	// every point is tried with a kubelet of our own in package dra.
	for _, tt := range []struct {
		point     string
		unprepare bool
	}{
		{point: "dra-intended"},
		{point: "dra-prepared"},
		{point: "dra-removed", unprepare: true},
	} {
		t.Run(tt.point, func(t *testing.T) {
			dieAt := func() {
				s.stop(t)
				s.Options.FaultPoint = tt.point
				s.Restart(t)
				s.AwaitReady(t)
				o.awaitOffered(t)
				s.Options.FaultPoint = ""
			}
			restart := func() {
				if code := s.Wait(t); code != -1 {
					t.Fatalf("the daemon ended with %d, want it killed at %s", code, tt.point)
				}
				s.Restart(t)
				s.AwaitReady(t)
			}
			if tt.unprepare {
				o.useOne(t, "killed")
				dieAt()
				askToEnd(t, "killed")
				restart()
				cluster.AwaitPodGone(t, "killed")
			} else {
				dieAt()
				o.use(t, "killed", kube.Devices(gpuClass, 1))
				restart()
				cluster.AwaitRunning(t, "killed")
				o.expectHeld(t, "witness", "killed")
				endPod(t, "killed")
			}
			o.expectHeld(t, "witness")
		})
	}

	t.Run("kubelet restarts", func(t *testing.T) {
		before := o.useOne(t, "before-restart")
		if err := cluster.RestartKubelet(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.awaitOffered(t)
		after := o.useOne(t, "after-restart")
		if before == after {
			t.Errorf("GPU %d was given to two pods", before)
		}
		o.expectHeld(t, "witness", "before-restart", "after-restart")
		cluster.AwaitDeviceHealth(t, "before-restart", corev1.ResourceHealthStatusHealthy)
	})

	t.Run("pod ends while there is no daemon", func(t *testing.T) {
		gpu := o.useOne(t, "orphan")
		s.Kill9(t)
		askToEnd(t, "orphan")
		pause(t.Context(), 2*time.Second)
		s.Restart(t)
		cluster.AwaitPodGone(t, "orphan")
		o.awaitOffered(t)
		o.use(t, "next", o.oneOf(gpu))
		cluster.AwaitRunning(t, "next")
		o.expectHeld(t, "witness", "next")
	})

	t.Run("API server is away", func(t *testing.T) {
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			if err := errors.Join(cluster.StartAPIServer(ctx), cluster.WakeControllers(ctx)); err != nil {
				t.Error(err)
			}
		})
		// The pod is bound and waits for the driver, which comes when nobody can tell it
		// what was allocated.
		s.stop(t)
		o.use(t, "outage", kube.Devices(gpuClass, 1))
		cluster.AwaitAllocated(t, "outage")
		awaitBound(t, "outage")
		cluster.StopAPIServer()
		s.Restart(t)
		s.AwaitReady(t)
		kube.Eventually(t, soon, func() error {
			registered, err := s.Value(t.Context(), "gpuvet_dra_registered")
			if err == nil && registered != 1 {
				err = errors.New("the kubelet does not know the driver")
			}
			return err
		})
		pause(t.Context(), 3*time.Second)
		ctx := t.Context()
		if err := errors.Join(cluster.StartAPIServer(ctx), cluster.WakeControllers(ctx)); err != nil {
			t.Fatal(err)
		}
		cluster.AwaitRunning(t, "outage")
		o.expectHeld(t, "witness", "outage")
	})

	if now := cluster.AwaitRunning(t, "witness"); now.UID != witness.UID || now.Status.ContainerStatuses[0].RestartCount > 0 {
		t.Error("the pod that was there all the time did not run on")
	}
}

// askToEnd deletes a pod with a moment of grace, and waits for nothing.
func askToEnd(t *testing.T, name string) {
	t.Helper()
	err := cluster.Admin().CoreV1().Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))})
	if err != nil {
		t.Fatalf("delete pod: %v", err)
	}
}

// awaitBound waits until the scheduler has put the pod onto its node.
func awaitBound(t *testing.T, name string) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		pod, err := cluster.Admin().CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && pod.Spec.NodeName == "" {
			err = fmt.Errorf("pod %s has no node", name)
		}
		return err
	})
}

// expectHeld checks that exactly the claims of these pods are held, that each has a spec
// and a GPU of its own, and that each container has what its claim was given.
func (o *offering) expectHeld(t *testing.T, pods ...string) {
	t.Helper()
	held := map[int]string{}
	var uids []string
	for _, name := range pods {
		gpu := o.held(t, name)[0]
		if other := held[gpu]; other != "" {
			t.Errorf("pods %s and %s have the same GPU %d", other, name, gpu)
		}
		held[gpu] = name
		uids = append(uids, string(cluster.AwaitAllocated(t, name).UID))
		if uuid := cluster.Inside(t, cluster.AwaitRunning(t, name)).Env["GPUVET_GPU_UUIDS"]; uuid != o.fleet[gpu].UUID {
			t.Errorf("the container of %s has %s, its claim %s", name, uuid, o.fleet[gpu].UUID)
		}
	}
	// What a claim of another pod has left is given back within a moment.
	kube.Eventually(t, soon, func() error {
		for state, want := range map[string]int{"prepared": len(pods), "intended": 0} {
			got, err := o.daemon.Value(t.Context(), "gpuvet_dra_claims", "state", state)
			if err != nil {
				return err
			}
			if int(got) != want {
				return fmt.Errorf("%v claims are %s, want %d", got, state, want)
			}
		}
		for _, spec := range claimSpecs() {
			if !slices.ContainsFunc(uids, func(uid string) bool { return strings.Contains(spec, uid) }) {
				return fmt.Errorf("CDI spec %s is of no claim that is held", spec)
			}
		}
		return nil
	})
}
