package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
	"gpuvet.dev/internal/e2e/parts"
)

const (
	lostTaint    = "gpuvet.dev/lost=GPULost:NoSchedule"
	memoryTaint  = "gpuvet.dev/memory=UncorrectableMemory:NoExecute"
	pendingTaint = "gpuvet.dev/memory=RowRemapPending:NoExecute"
)

// oneOf is a claim to one of these GPUs.
func (o *offering) oneOf(gpus ...int) resourceapi.ResourceClaimSpec {
	var uuids []string
	for _, gpu := range gpus {
		uuids = append(uuids, fmt.Sprintf("%q", o.fleet[gpu].UUID))
	}
	spec := kube.Devices(gpuClass, 1)
	spec.Devices.Requests[0].Exactly.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
		Expression: fmt.Sprintf("device.attributes['gpu.gpuvet.dev'].uuid in [%s]", strings.Join(uuids, ", ")),
	}}}
	return spec
}

// Faults of single GPUs, from the kernel log to the pods that hold them and those that
// wait for them.
func TestDRAFencesOneGPU(t *testing.T) { //nolint:tparallel // the subtests share one daemon
	t.Parallel()
	s, o := offer(t, daemon.SetOptions{
		Fleet:  daemon.NewFleet(8),
		Config: daemon.Config{Rows: []string{"{reason: UncorrectableMemory, effect: NoExecute}"}},
	})
	o.use(t, "bystander", o.oneOf(0))
	before := cluster.AwaitRunning(t, "bystander")

	t.Run("and no other", func(t *testing.T) {
		o.use(t, "holder", o.oneOf(3))
		cluster.AwaitRunning(t, "holder")
		o.lose(t, 3)
		o.awaitTaint(t, 3, lostTaint)
		o.awaitUnfenced(t, "GPULost", o.fleet[3])
		health := cluster.AwaitDeviceHealth(t, "holder", corev1.ResourceHealthStatusUnhealthy)
		if message := health[0].Message; message == nil || !strings.Contains(*message, "GPULost") {
			t.Errorf("the kubelet does not say what ails the device: %+v", health)
		}
		awaitPodEvent(t, "holder", "GPULost", "gpuvet.dev", o.fleet[3].UUID)
		cluster.AwaitRunning(t, "holder") // NoSchedule drives nobody away

		o.use(t, "others", kube.Devices(gpuClass, 6))
		cluster.AwaitRunning(t, "others")
		got := o.held(t, "others")
		if slices.Sort(got); !slices.Equal(got, []int{1, 2, 4, 5, 6, 7}) {
			t.Errorf("new work has the GPUs %v, want all that are free and well", got)
		}
		if health := cluster.AwaitDeviceHealth(t, "others", corev1.ResourceHealthStatusHealthy); len(health) != 6 {
			t.Errorf("health of the others is %+v, want six", health)
		}
	})

	t.Run("except from diagnostics", func(t *testing.T) {
		o.diagnose(t)
	})

	// Also what a restart of the daemon does to claims: nothing.
	t.Run("until the driver is loaded again", func(t *testing.T) {
		s.Play(t, "{at: 1s, reload: driver}", "{at: 1100ms, gpu: 5, remapPending: true}")
		s.AwaitGone(t, s.Delete(t))
		s.AwaitReady(t)
		o.awaitTaint(t, 3, "")
		o.awaitOffered(t)
		o.use(t, "again", o.oneOf(3))
		cluster.AwaitRunning(t, "again")
	})

	// A Job waits 10 s before it makes another pod, so these two go side by side.
	t.Run("and moves work on", func(t *testing.T) {
		// Nobody has seen yet that GPU 5 is not fit any more: it is asked every 10 s.
		refused, evicted := o.startJob(t, "refused", o.oneOf(5, 6)), o.startJob(t, "evicted", o.oneOf(1, 2))
		evicted.awaitRunning(t, 1)
		daemon.KernelLog(t, o.fleet[1].Xid(95, "pid=7, name=agent, Uncontained: FBHUB. RST: Yes, D-RST: No"))
		follow := []*job{refused, evicted}
		t.Run("at the moment of prepare", func(t *testing.T) {
			refused.awaitReplaced(t, o, 5, 6, follow...)
			o.awaitTaint(t, 5, pendingTaint)
			first := refused.first(t).Name
			awaitPodEvent(t, first, "ClaimRefused", "gpuvet.dev", o.fleet[5].UUID)
			awaitPodEvent(t, first, "FailedPrepareDynamicResources", o.fleet[5].UUID, "RowRemapPending")
		})
		t.Run("while it runs, where the policy says so", func(t *testing.T) {
			evicted.awaitReplaced(t, o, 1, 2, follow...)
			o.awaitTaint(t, 1, memoryTaint)
		})
	})

	t.Run("and the node once there is none left", func(t *testing.T) {
		for gpu := range o.fleet {
			if gpu != 1 { // which has had it
				o.lose(t, gpu)
			}
		}
		kube.Eventually(t, soon, func() error {
			for name, device := range o.devices(t) {
				if *device.Attributes["healthy"].BoolValue {
					return fmt.Errorf("device %s is still published as healthy", name)
				}
			}
			if node := read(t, o.node); len(ownTaints(node)) != 1 {
				return fmt.Errorf("taints of the node are %v, want ours", node.Spec.Taints)
			}
			return nil
		})
		o.use(t, "in-vain", kube.Devices(gpuClass, 1))
		cluster.AwaitUnschedulable(t, "in-vain")
		o.recoverByHand(t, s, 7)
		cluster.AwaitRunning(t, "in-vain")
		if gpu := o.held(t, "in-vain")[0]; gpu != 7 {
			t.Errorf("the pod has GPU %d, want the one that recovered, 7", gpu)
		}
		if taints := ownTaints(read(t, o.node)); len(taints) > 0 {
			t.Errorf("the node is still tainted: %v", taints)
		}
	})

	if now := cluster.AwaitRunning(t, "bystander"); now.UID != before.UID || now.Status.ContainerStatuses[0].RestartCount > 0 {
		t.Error("the pod that had nothing to do with all this did not run on")
	}
}

// diagnose has somebody look at every GPU, sick and held ones too, by the claim that
// ships. Who holds them goes on.
func (o *offering) diagnose(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "dra-diagnostics", Labels: map[string]string{resourceapi.DRAAdminNamespaceLabelKey: "true"},
	}}
	if _, err := cluster.Admin().CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "namespace", namespace.Name); err != nil {
			t.Error(err)
		}
	})
	kube.Eventually(t, soon, func() error { // a pod needs it
		_, err := cluster.Admin().CoreV1().ServiceAccounts(namespace.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	template := shippedTemplates(t)["diagnostics"]
	template.Namespace = namespace.Name
	if _, err := cluster.Admin().ResourceV1().ResourceClaimTemplates(namespace.Name).Create(t.Context(), &template, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := cluster.Admin().CoreV1().Pods(namespace.Name)
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "diagnostics"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: o.node}, TerminationGracePeriodSeconds: new(int64(1)),
			ResourceClaims: []corev1.PodResourceClaim{{Name: "all", ResourceClaimTemplateName: &template.Name}},
			Containers: []corev1.Container{{
				Name: "app", Image: parts.Image, ImagePullPolicy: corev1.PullNever,
				Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "all"}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var pod *corev1.Pod
	kube.Eventually(t, time.Minute, func() (err error) {
		if pod, err = pods.Get(t.Context(), "diagnostics", metav1.GetOptions{}); err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("the pod is %s: %s", pod.Status.Phase, kube.WhyNot(pod))
		}
		return err
	})
	if uuids := strings.Split(cluster.Inside(t, pod).Env["GPUVET_GPU_UUIDS"], ","); len(uuids) != len(o.fleet) {
		t.Errorf("it sees %v, want all %d", uuids, len(o.fleet))
	}
	cluster.AwaitRunning(t, "bystander")
}

// awaitUnfenced waits until the node's condition names the GPU, and checks that no taint
// keeps work off the whole node.
func (o *offering) awaitUnfenced(t *testing.T, reason string, gpu daemon.GPU) {
	t.Helper()
	kube.Eventually(t, soon, func() error {
		node := read(t, o.node)
		condition := kube.Condition(node, ownCondition)
		if condition.Status != corev1.ConditionFalse || condition.Reason != reason || !strings.Contains(condition.Message, gpu.UUID) {
			return fmt.Errorf("condition is %s (%s: %s), want False (%s) with %s", condition.Status, condition.Reason, condition.Message, reason, gpu.UUID)
		}
		if taints := ownTaints(node); len(taints) > 0 {
			t.Fatalf("the node is tainted for one GPU: %v", taints)
		}
		return nil
	})
}

// job is a Job that excuses pods that were driven away, and that no failed pod is left
// for.
type job struct {
	name string
	pods map[string]*corev1.Pod // the newest that was seen of each, by name
	made []string               // their names, in the order of their making
}

// startJob creates a Job of one pod with a claim, which goes with the test.
func (o *offering) startJob(t *testing.T, name string, claim resourceapi.ResourceClaimSpec) *job {
	t.Helper()
	cluster.CreateClaimTemplate(t, name, claim)
	jobs := cluster.Admin().BatchV1().Jobs("default")
	_, err := jobs.Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action: batchv1.PodFailurePolicyActionIgnore,
				OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{
					Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				}},
			}}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: new(int64(1)),
				NodeSelector:   map[string]string{corev1.LabelHostname: o.node},
				ResourceClaims: []corev1.PodResourceClaim{{Name: "devices", ResourceClaimTemplateName: &name}},
				Containers: []corev1.Container{{
					Name: "app", Image: parts.Image, Args: []string{"work"}, ImagePullPolicy: corev1.PullNever,
					Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "devices"}}},
				}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create job: %v", err)
	}
	j := &job{name: name, pods: map[string]*corev1.Pod{}}
	t.Cleanup(func() { j.end(t) })
	return j
}

// end deletes the Job and waits until its pods are gone.
func (j *job) end(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer stop()
	if _, err := cluster.Kubectl(ctx, "delete", "job", j.name, "--cascade=foreground"); err != nil {
		t.Error(err)
	}
}

// look sees which pods the Job has, and keeps what it saw last of each: one that was
// driven away is soon gone.
func (j *job) look(t *testing.T) error {
	t.Helper()
	list, err := cluster.Admin().CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + j.name})
	if err != nil {
		return err
	}
	for i := range list.Items {
		pod := &list.Items[i]
		if j.pods[pod.Name] == nil {
			j.made = append(j.made, pod.Name)
		}
		j.pods[pod.Name] = pod
	}
	return nil
}

func (j *job) first(t *testing.T) *corev1.Pod {
	t.Helper()
	if len(j.made) == 0 {
		t.Fatalf("Job %s has made no pod", j.name)
	}
	return j.pods[j.made[0]]
}

// awaitRunning waits until the pod runs that the Job has made as the so-manieth.
func (j *job) awaitRunning(t *testing.T, number int) *corev1.Pod {
	t.Helper()
	kube.Eventually(t, time.Minute, func() error {
		if err := j.look(t); err != nil {
			return err
		}
		if len(j.made) < number || j.pods[j.made[number-1]].Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod number %d of Job %s does not run; it has made %v", number, j.name, j.made)
		}
		return nil
	})
	if len(j.made) != number {
		t.Errorf("Job %s has made the pods %v, want %d", j.name, j.made, number)
	}
	return j.pods[j.made[number-1]]
}

// awaitReplaced waits until the first pod, which had one GPU, was driven away and
// excused, and the second runs on the other. Meanwhile it follows other Jobs too.
func (j *job) awaitReplaced(t *testing.T, o *offering, from, to int, others ...*job) {
	t.Helper()
	kube.Eventually(t, time.Minute, func() error {
		for _, other := range append(others, j) {
			if err := other.look(t); err != nil {
				return err
			}
		}
		if len(j.made) < 2 {
			return fmt.Errorf("Job %s has made no second pod", j.name)
		}
		return nil
	})
	second := j.awaitRunning(t, 2)
	disrupted := slices.ContainsFunc(j.first(t).Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "DeletionByDeviceTaintManager"
	})
	if !disrupted {
		t.Errorf("the first pod was not driven off GPU %d by its taint: %+v", from, j.first(t).Status.Conditions)
	}
	if uuid := cluster.Inside(t, second).Env["GPUVET_GPU_UUIDS"]; uuid != o.fleet[to].UUID {
		t.Errorf("the second pod has %s, want %s", uuid, o.fleet[to].UUID)
	}
	is, err := cluster.Admin().BatchV1().Jobs("default").Get(t.Context(), j.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if is.Status.Failed != 0 || is.Status.Active != 1 {
		t.Errorf("Job %s counts %d failures and %d at work, want 0 and 1", j.name, is.Status.Failed, is.Status.Active)
	}
}
