package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/internal/e2e/kube"
)

const (
	manifest  = "../../deploy/daemonset.yaml" // from the folder of the tests
	namespace = "gpuvet"
	setName   = "gpuvet"
	setLabel  = "app.kubernetes.io/name=gpuvet"
	// Folder is where the daemon of a [Set] keeps its state on the node.
	Folder = "/var/lib/gpuvet"
)

// node belongs to one set at a time: of two daemons on it one would stand by for the
// other.
var node sync.Mutex

// SetOptions say in what a DaemonSet differs from the one that ships.
type SetOptions struct {
	Fleet    Fleet
	Timeline []string // of the scenario, see [Fleet.Scenario]
	Config   Config
	// Library has workers read the GPUs through a libnvidia-ml.so.1 that plays the
	// scenario, instead of the daemon itself.
	Library bool
	Env     map[string]string
	Mounts  []string // folders of the node that the pod sees at the same place
}

// Set is gpuvet as a cluster runs it: the DaemonSet that ships, with its image,
// on the node that has a kubelet. What differs is what scripted GPUs need.
type Set struct {
	pages

	cluster  *kube.Cluster
	fleet    Fleet
	scenario string   // path
	told     []string // logs of pods that were deleted
}

// StartSet applies the DaemonSet, which goes with the test. It waits while
// another test has one, and not until the daemon is ready. Without gcc, which
// the image takes, the test is skipped, unless GPUVET_REQUIRE=all.
func StartSet(t testing.TB, cluster *kube.Cluster, o SetOptions) *Set {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil && os.Getenv("GPUVET_REQUIRE") != "all" {
		t.Skipf("the worker in the image cannot be built: %v", err)
	}
	node.Lock()
	t.Cleanup(node.Unlock)
	dir, err := cluster.Folder(filepath.Join("set", strings.ReplaceAll(t.Name(), "/", "-")))
	if err != nil {
		t.Fatal(err)
	}
	s := &Set{cluster: cluster, fleet: o.Fleet, scenario: filepath.Join(dir, "scenario.yaml")}
	s.address = func(ctx context.Context) (string, error) {
		pod, err := s.find(ctx)
		if err != nil {
			return "", err
		}
		return pod.Status.PodIP + ":9410", nil
	}
	s.Play(t, o.Timeline...)
	s.Configure(t, o.Config)
	t.Cleanup(func() { s.remove(t) })
	s.apply(t, o)
	return s
}

// apply creates what the shipped file says, with the changes that scripted GPUs
// need.
func (s *Set) apply(t testing.TB, o SetOptions) {
	t.Helper()
	if _, err := s.cluster.Image(); err != nil {
		t.Fatalf("there is no image to test: %v", err)
	}
	shipped, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatalf("read shipped DaemonSet: %v", err)
	}
	changes, err := json.Marshal(s.changes(t, o))
	if err != nil {
		t.Fatalf("write changes: %v", err)
	}
	kustomization, err := json.Marshal(map[string]any{
		"resources": []string{"daemonset.yaml"},
		"patches":   []any{map[string]any{"target": map[string]string{"kind": "DaemonSet"}, "patch": string(changes)}},
	})
	if err != nil {
		t.Fatalf("write changes: %v", err)
	}
	dir := filepath.Dir(s.scenario)
	for name, content := range map[string][]byte{"daemonset.yaml": shipped, "kustomization.yaml": kustomization} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatalf("write changed DaemonSet: %v", err)
		}
	}
	if _, err := s.cluster.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-k", dir); err != nil {
		t.Fatal(err)
	}
}

// change is an operation of a JSON patch, RFC 6902.
type change struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// changes are what makes the shipped DaemonSet play a scenario.
func (s *Set) changes(t testing.TB, o SetOptions) []change {
	t.Helper()
	const pod = "/spec/template/spec"
	var changes []change
	add := func(list string, value any) {
		changes = append(changes, change{Op: "add", Path: pod + list + "/-", Value: value})
	}
	mounts := append([]string{filepath.Dir(s.scenario)}, o.Mounts...)
	args := []string{"--fake-nvml=" + s.scenario, "--config=" + configBeside(s.scenario), "--state-dir=" + Folder, "--accept-user-kernel-lines"}
	if o.Library {
		library, err := s.cluster.Library()
		if err != nil {
			t.Fatalf("there is no library to test: %v", err)
		}
		args = append(args, "--nvml-library="+library)
		mounts = append(mounts, filepath.Dir(library))
	}
	for _, arg := range args {
		add("/containers/0/args", arg)
	}
	for name, value := range o.Env {
		add("/containers/0/env", corev1.EnvVar{Name: name, Value: value})
	}
	for i, folder := range mounts {
		name := fmt.Sprintf("test-%d", i)
		add("/volumes", corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: folder},
		}})
		add("/containers/0/volumeMounts", corev1.VolumeMount{Name: name, MountPath: folder})
	}
	return changes
}

// Play writes the scenario of the next life.
func (s *Set) Play(t testing.TB, timeline ...string) {
	t.Helper()
	s.fleet.write(t, s.scenario, timeline)
}

// Configure writes the configuration. The daemon takes it within 10 s, except for the
// section dra, which is that of its next life.
func (s *Set) Configure(t testing.TB, c Config) {
	t.Helper()
	c.write(t, configBeside(s.scenario))
}

// find is the one pod that is not being deleted.
func (s *Set) find(ctx context.Context) (*corev1.Pod, error) {
	pods, err := s.cluster.Admin().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: setLabel})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var found []*corev1.Pod
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			found = append(found, &pods.Items[i])
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d pods of the DaemonSet, want one", len(found))
	}
	return found[0], nil
}

// AwaitReady waits until the pod of the newest template is ready and alone, and has
// taken over.
func (s *Set) AwaitReady(t testing.TB) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	kube.Eventually(t, time.Minute, func() (err error) {
		set, err := s.cluster.Admin().AppsV1().DaemonSets(namespace).Get(t.Context(), setName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod, err = s.find(t.Context()); err != nil {
			return err
		}
		if status := set.Status; status.ObservedGeneration != set.Generation || status.UpdatedNumberScheduled != 1 || status.NumberReady != 1 {
			return fmt.Errorf("DaemonSet is not rolled out: %+v; pod: %s", status, kube.WhyNot(pod))
		}
		if err := kube.Ready(pod); err != nil {
			return err
		}
		return s.atWork(t.Context())
	})
	return pod
}

// atWork is nil unless the one pod is a standby.
func (s *Set) atWork(ctx context.Context) error {
	standby, err := s.Value(ctx, "gpuvet_standby")
	if err == nil && standby != 0 {
		err = errors.New("the pod stands by")
	}
	return err
}

// Kill9 ends the container's process as a crash would, and waits until the
// kubelet has started it again.
func (s *Set) Kill9(t testing.TB) {
	t.Helper()
	pod := s.AwaitReady(t)
	processes := s.cluster.Processes(t, pod)
	if len(processes) == 0 {
		t.Fatal("the pod has no process")
	}
	if err := syscall.Kill(processes[0].PID, syscall.SIGKILL); err != nil {
		t.Fatalf("kill daemon: %v", err)
	}
	restarts := pod.Status.ContainerStatuses[0].RestartCount
	kube.Eventually(t, time.Minute, func() error {
		now, err := s.find(t.Context())
		if err == nil && now.Status.ContainerStatuses[0].RestartCount == restarts {
			err = errors.New("the kubelet has not started the container again")
		}
		return err
	})
	s.AwaitReady(t)
}

// Delete asks for the pod to be deleted. The DaemonSet makes another one as soon
// as its container has ended.
func (s *Set) Delete(t testing.TB) *corev1.Pod {
	t.Helper()
	pod := s.AwaitReady(t)
	s.told = append(s.told, s.podLog(pod.Name))
	if err := s.cluster.Admin().CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("delete pod: %v", err)
	}
	return pod
}

// AwaitGone waits until the pod is there no more.
func (s *Set) AwaitGone(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	kube.Eventually(t, time.Minute, func() error {
		now, err := s.cluster.Admin().CoreV1().Pods(namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil:
			err = fmt.Errorf("pod %s is still there, %s", now.Name, now.Status.Phase)
		}
		return err
	})
}

// Command runs another command of gpuvet inside the pod, such as "status", and
// returns what it printed and its exit code.
func (s *Set) Command(t testing.TB, args ...string) (output string, code int) {
	t.Helper()
	pod, err := s.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	output, err = s.cluster.Kubectl(t.Context(), append([]string{"exec", "-n", namespace, pod.Name, "--", "gpuvet"}, args...)...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return output, exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return output, 0
}

// Log is everything that the daemon has said, over all its lives of which the
// kubelet still knows.
func (s *Set) Log() string {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	all := s.told
	if pod, err := s.find(ctx); err == nil {
		all = append(all, s.podLog(pod.Name))
	}
	return strings.Join(all, "\n")
}

func (s *Set) podLog(pod string) string {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	// The first start has no previous log, which is no error here.
	before, err := s.cluster.Kubectl(ctx, "logs", "-n", namespace, pod, "--previous")
	if err != nil {
		before = ""
	}
	now, err := s.cluster.Kubectl(ctx, "logs", "-n", namespace, pod)
	if err != nil {
		return err.Error()
	}
	return before + now
}

// remove takes the DaemonSet away, with all it has left on the node.
func (s *Set) remove(t testing.TB) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer stop()
	if t.Failed() {
		t.Logf("log of the DaemonSet:\n%s", s.Log())
	}
	if _, err := s.cluster.Kubectl(ctx, "delete", "--ignore-not-found", "--cascade=foreground", "-n", namespace, "daemonset", setName); err != nil {
		t.Error(err)
	}
	leave(t, s.cluster)
	if err := os.RemoveAll(Folder); err != nil {
		t.Errorf("remove state of daemon: %v", err)
	}
}

// leave takes away what a daemon has left on the node with the kubelet.
func leave(t testing.TB, cluster *kube.Cluster) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer stop()
	away := []byte(`{"status":{"conditions":[{"type":"GPUHealthy","$patch":"delete"}]}}`)
	nodes := cluster.Admin().CoreV1().Nodes()
	if _, err := nodes.Patch(ctx, kube.NodeName, types.StrategicMergePatchType, away, metav1.PatchOptions{}, "status"); err != nil {
		t.Errorf("remove condition: %v", err)
	}
	if _, err := nodes.Patch(ctx, kube.NodeName, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("remove taints: %v", err)
	}
	// The kubelet would do it half a minute later.
	slices := cluster.Admin().ResourceV1().ResourceSlices()
	own := metav1.ListOptions{FieldSelector: resourceapi.ResourceSliceSelectorNodeName + "=" + kube.NodeName}
	if err := slices.DeleteCollection(ctx, metav1.DeleteOptions{}, own); err != nil {
		t.Errorf("remove slices: %v", err)
	}
}
