package kube

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Devices is a claim to so many devices of a class, under the request "gpu"; zero are
// all that there are.
func Devices(class string, count int64, tolerations ...resourceapi.DeviceToleration) resourceapi.ResourceClaimSpec {
	exact := &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count, Tolerations: tolerations,
	}
	if count == 0 {
		exact.AllocationMode = resourceapi.DeviceAllocationModeAll
	}
	return resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "gpu", Exactly: exact}},
	}}
}

// CreateClaim creates a claim in namespace default, which goes with the test. Pods name
// it in [Pod.Claim].
func (c *Cluster) CreateClaim(t testing.TB, name string, spec resourceapi.ResourceClaimSpec) *resourceapi.ResourceClaim {
	t.Helper()
	claims := c.admin.ResourceV1().ResourceClaims("default")
	claim, err := claims.Create(t.Context(), &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create claim: %v", err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer stop()
		err := claims.Delete(ctx, name, metav1.DeleteOptions{})
		for err == nil { // until the controllers have let go of it, the name is taken
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			_, err = claims.Get(ctx, name, metav1.GetOptions{})
		}
		removed(t, err)
	})
	return claim
}

// CreateClaimTemplate creates a template in namespace default, which goes with the test.
// Pods name it in [Pod.ClaimTemplate].
func (c *Cluster) CreateClaimTemplate(t testing.TB, name string, spec resourceapi.ResourceClaimSpec) {
	t.Helper()
	templates := c.admin.ResourceV1().ResourceClaimTemplates("default")
	template := &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceClaimTemplateSpec{Spec: spec},
	}
	if _, err := templates.Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create claim template: %v", err)
	}
	t.Cleanup(func() { removed(t, templates.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})) })
}

// PublishSlice creates a ResourceSlice as the administrator, which goes with the test.
// It is what the API server has made of it.
func (c *Cluster) PublishSlice(t testing.TB, slice *resourceapi.ResourceSlice) *resourceapi.ResourceSlice {
	t.Helper()
	slices := c.admin.ResourceV1().ResourceSlices()
	created, err := slices.Create(t.Context(), slice, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("publish slice: %v", err)
	}
	t.Cleanup(func() {
		removed(t, slices.Delete(context.WithoutCancel(t.Context()), created.Name, metav1.DeleteOptions{}))
	})
	return created
}

// Slices are those of a node, of every driver.
func (c *Cluster) Slices(t testing.TB, node string) []resourceapi.ResourceSlice {
	t.Helper()
	list, err := c.admin.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{
		FieldSelector: resourceapi.ResourceSliceSelectorNodeName + "=" + node,
	})
	if err != nil {
		t.Fatalf("list slices: %v", err)
	}
	return list.Items
}

// AwaitAllocated waits until the scheduler has given the pod's one claim its devices,
// which it does on a node without a kubelet too.
func (c *Cluster) AwaitAllocated(t testing.TB, pod string) *resourceapi.ResourceClaim {
	t.Helper()
	var claim *resourceapi.ResourceClaim
	Eventually(t, time.Minute, func() (err error) {
		there, err := c.admin.CoreV1().Pods("default").Get(t.Context(), pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		name, err := claimName(there)
		if err != nil {
			return err
		}
		claim, err = c.admin.ResourceV1().ResourceClaims("default").Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && claim.Status.Allocation == nil {
			err = fmt.Errorf("claim %s has no devices: %s", name, WhyNot(there))
		}
		return err
	})
	return claim
}

// claimName is the name of the pod's one claim, which the controllers may have made.
func claimName(pod *corev1.Pod) (string, error) {
	for _, status := range pod.Status.ResourceClaimStatuses {
		if status.ResourceClaimName != nil {
			return *status.ResourceClaimName, nil
		}
	}
	for _, claim := range pod.Spec.ResourceClaims {
		if claim.ResourceClaimName != nil {
			return *claim.ResourceClaimName, nil
		}
	}
	return "", fmt.Errorf("pod %s has no claim yet", pod.Name)
}

// Allocated are the names of the devices that a claim has, in the scheduler's order.
func Allocated(claim *resourceapi.ResourceClaim) []string {
	if claim.Status.Allocation == nil {
		return nil
	}
	var names []string
	for _, result := range claim.Status.Allocation.Devices.Results {
		names = append(names, result.Device)
	}
	return names
}

// DeviceHealth is what the kubelet says in the pod's status about the devices of its
// claims: those of every container.
func DeviceHealth(pod *corev1.Pod) []corev1.ResourceHealth {
	var all []corev1.ResourceHealth
	for _, container := range pod.Status.ContainerStatuses {
		for _, resource := range container.AllocatedResourcesStatus {
			all = append(all, resource.Resources...)
		}
	}
	return all
}

// AwaitDeviceHealth waits until the kubelet says of each device of the pod that it is
// healthy, unhealthy or unknown, whatever is asked for, and returns what it says.
func (c *Cluster) AwaitDeviceHealth(t testing.TB, pod string, want corev1.ResourceHealthStatus) []corev1.ResourceHealth {
	t.Helper()
	return DeviceHealth(c.awaitPod(t, pod, func(pod *corev1.Pod) error {
		health := DeviceHealth(pod)
		if len(health) == 0 {
			return errors.New("the kubelet says nothing about the devices")
		}
		for _, device := range health {
			if device.Health != want {
				return fmt.Errorf("devices are %+v, want %s", health, want)
			}
		}
		return nil
	}))
}

// removed fails the test unless an object is gone: the test itself, or the garbage
// collector, may have been first.
func removed(t testing.TB, err error) {
	t.Helper()
	if err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("remove: %v", err)
	}
}
