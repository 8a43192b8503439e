package kube

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/parts"
)

// Pod is a pod in namespace default. Its one container waits for a signal, or
// exits 1 with the argument "fail".
type Pod struct {
	Name        string
	Node        string // the scheduler may choose no other; empty: any
	Tolerations []corev1.Toleration
	Args        []string
	// Of the next three one at most. The container has all devices of the claim.
	Claim         string              // name of a claim
	ClaimTemplate string              // name of a template of which it gets a claim
	Resources     corev1.ResourceList // extended resources that it asks for
}

// CreatePod creates the pod, which goes with the test. A pod for one node goes
// through the scheduler too, so that taints hold it back.
func (c *Cluster) CreatePod(t testing.TB, p Pod) *corev1.Pod {
	t.Helper()
	no := int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: "default"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "app", Image: parts.Image, Args: p.Args, ImagePullPolicy: corev1.PullNever,
			}},
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &no,
			Tolerations:                   p.Tolerations,
		},
	}
	if p.Node != "" {
		pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: p.Node}
	}
	pod.Spec.Containers[0].Resources.Limits = p.Resources
	if p.Claim != "" || p.ClaimTemplate != "" {
		claim := corev1.PodResourceClaim{Name: "devices"}
		if p.Claim != "" {
			claim.ResourceClaimName = &p.Claim
		} else {
			claim.ResourceClaimTemplateName = &p.ClaimTemplate
		}
		pod.Spec.ResourceClaims = []corev1.PodResourceClaim{claim}
		pod.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: claim.Name}}
	}
	created, err := c.admin.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create pod: %v", err)
	}
	t.Cleanup(func() {
		grace := metav1.DeleteOptions{GracePeriodSeconds: &no}
		err := c.admin.CoreV1().Pods("default").Delete(context.WithoutCancel(t.Context()), p.Name, grace)
		if err != nil && !apierrors.IsNotFound(err) { // the test may have removed it
			t.Errorf("remove pod %s: %v", p.Name, err)
		}
	})
	return created
}

// AwaitRunning waits until the pod runs.
func (c *Cluster) AwaitRunning(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	return c.awaitPod(t, name, func(pod *corev1.Pod) error {
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod %s is %s, not Running: %s", name, pod.Status.Phase, WhyNot(pod))
		}
		return nil
	})
}

// AwaitUnschedulable waits until the scheduler has refused the pod and returns
// its reasons.
func (c *Cluster) AwaitUnschedulable(t testing.TB, name string) string {
	t.Helper()
	return WhyNot(c.awaitPod(t, name, func(pod *corev1.Pod) error {
		condition := scheduled(pod)
		if condition == nil || condition.Reason != corev1.PodReasonUnschedulable {
			return fmt.Errorf("pod %s is %s, not unschedulable", name, pod.Status.Phase)
		}
		return nil
	}))
}

// AwaitPodGone waits until there is no such pod.
func (c *Cluster) AwaitPodGone(t testing.TB, name string) {
	t.Helper()
	Eventually(t, time.Minute, func() error {
		pods, err := c.admin.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("pod %s is still there", name)
		}
		return err
	})
}

func (c *Cluster) awaitPod(t testing.TB, name string, condition func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	Eventually(t, time.Minute, func() (err error) {
		if pod, err = c.admin.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		return condition(pod)
	})
	return pod
}

// Ready is nil if the pod is ready, and else says why it is not.
func Ready(pod *corev1.Pod) error {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("pod %s is %s and not ready: %s", pod.Name, pod.Status.Phase, WhyNot(pod))
}

func scheduled(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodScheduled {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// WhyNot is what the scheduler or the kubelet last said about the pod.
func WhyNot(pod *corev1.Pod) string {
	for _, container := range pod.Status.ContainerStatuses {
		if container.State.Waiting != nil && container.State.Waiting.Message != "" {
			return container.State.Waiting.Message
		}
	}
	if condition := scheduled(pod); condition != nil {
		return condition.Message
	}
	return pod.Status.Message
}
