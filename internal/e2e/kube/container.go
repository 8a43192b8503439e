package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Process is a process of a container, as /proc shows it.
type Process struct {
	PID  int
	Name string // of the program, 15 bytes at most
	// Threads are the states of its threads, a letter each, see proc_pid_stat(5).
	Threads string
}

// Stuck reports whether a thread waits in the kernel where no signal reaches it.
func (p Process) Stuck() bool { return strings.Contains(p.Threads, "D") }

// Processes are those in the cgroups of the pod's first container, in the order
// of their start. The first one is the container's own.
func (c *Cluster) Processes(t testing.TB, pod *corev1.Pod) []Process {
	t.Helper()
	if len(pod.Status.ContainerStatuses) == 0 {
		return nil
	}
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil || id == "" {
		return nil
	}
	var found []Process
	for _, path := range groups {
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), id) {
			continue // it has ended, or is another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if process, err := ReadProcess(pid); err == nil {
			found = append(found, process)
		}
	}
	slices.SortFunc(found, func(a, b Process) int { return a.PID - b.PID })
	return found
}

// ReadProcess reads /proc about a process. It is an error if there is none.
func ReadProcess(pid int) (Process, error) {
	p := Process{PID: pid}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return p, fmt.Errorf("read process %d: it has no threads", pid)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		// The name may hold anything, a parenthesis too.
		begin, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
		p.Name = string(stat[begin+1 : end])
		p.Threads += string(stat[end+2])
	}
	return p, nil
}

// AsPod is a client with the token that the kubelet has put into the pod, read
// where the kubelet keeps it.
func (c *Cluster) AsPod(t testing.TB, pod *corev1.Pod) kubernetes.Interface {
	t.Helper()
	pattern := filepath.Join(KubeletDir, "pods", string(pod.UID), "volumes/kubernetes.io~projected/*/token")
	tokens, err := filepath.Glob(pattern)
	if err != nil || len(tokens) != 1 {
		t.Fatalf("%d tokens are at %s, want one", len(tokens), pattern)
	}
	client, err := connect(&rest.Config{
		Host: c.Server(), BearerTokenFile: tokens[0], TLSClientConfig: rest.TLSClientConfig{CAData: c.authority.pem()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}
