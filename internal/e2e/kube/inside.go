package kube

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Inside is what the first process of a container was given.
type Inside struct {
	Env     map[string]string
	Devices map[string]string // "major:minor" by path, of all below /dev
	root    string            // the container's /, as it is reached from here
}

// Inside looks into the pod's one container, which runs.
func (c *Cluster) Inside(t testing.TB, pod *corev1.Pod) Inside {
	t.Helper()
	processes := c.Processes(t, pod)
	if len(processes) == 0 {
		t.Fatalf("pod %s has no process", pod.Name)
	}
	proc := fmt.Sprintf("/proc/%d", processes[0].PID)
	in := Inside{Env: map[string]string{}, Devices: map[string]string{}, root: filepath.Join(proc, "root")}
	environ, err := os.ReadFile(filepath.Join(proc, "environ"))
	if err != nil {
		t.Fatalf("read environment of pod %s: %v", pod.Name, err)
	}
	for variable := range strings.SplitSeq(string(environ), "\x00") {
		if name, value, ok := strings.Cut(variable, "="); ok {
			in.Env[name] = value
		}
	}
	dev := filepath.Join(in.root, "dev")
	err = filepath.WalkDir(dev, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		in.Devices[strings.TrimPrefix(path, in.root)] = fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
		return nil
	})
	if err != nil {
		t.Fatalf("read devices of pod %s: %v", pod.Name, err)
	}
	return in
}

// File is the content of a file of the container. A link in its path must lead nowhere
// else.
func (in Inside) File(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(in.root, path))
	if err != nil {
		t.Fatalf("read file of container: %v", err)
	}
	return content
}
