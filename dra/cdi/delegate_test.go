package cdi_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gpuvet.dev/dra/cdi"
)

// host is the root of a node, with the two folders of specs.
type host struct {
	t    testing.TB
	root string
}

func newHost(t testing.TB) host {
	t.Helper()
	h := host{t, t.TempDir()}
	for _, dir := range h.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h host) at(path string) string { return filepath.Join(h.root, path) }

// dirs are the folders of specs as a runtime of this machine would be told.
func (h host) dirs() []string { return []string{h.at("etc/cdi"), h.at("run/cdi")} }

func (h host) file(path, content string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.at(path)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.at(path), []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// node makes device nodes, of /dev/null.
func (h host) node(paths ...string) {
	h.t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(h.at(path)), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := unix.Mknod(h.at(path), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			needs(h.t, "root, to make device nodes", err)
		}
	}
}

// spec is what nvidia-ctk cdi generate writes for GPUs, less the libraries. The
// nodes are in dev, whatever the container calls them.
func spec(dev string, gpus ...int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n")
	fmt.Fprintf(&b, "  env: [NVIDIA_VISIBLE_DEVICES=void]\n  deviceNodes:\n  - {path: /dev/nvidiactl, hostPath: %s/nvidiactl}\n", dev)
	fmt.Fprintf(&b, "devices:\n")
	for _, n := range gpus {
		for _, name := range []string{fmt.Sprint(n), fmt.Sprintf("GPU-%d", n)} {
			fmt.Fprintf(&b, "- name: %q\n  containerEdits:\n    deviceNodes:\n    - {path: /dev/nvidia%d, hostPath: %s/nvidia%d}\n", name, n, dev, n)
		}
	}
	return b.String()
}

func TestNodesOwnSpecGivesTheDevice(t *testing.T) {
	h := newHost(t)
	h.node("dev/nvidiactl", "dev/nvidia0", "dev/nvidia1")
	h.file("run/cdi/nvidia.yaml", spec(h.at("dev"), 0, 1))
	s := newSpecs(t, cdi.Options{Mode: cdi.Delegate, Dir: h.at("run/cdi"), SpecDirs: h.dirs()})
	if err := s.Ready(gpu(1)); err != nil {
		t.Fatal(err)
	}
	ids := write(t, s, claim, []cdi.Device{gpu(1)})
	want := []string{"nvidia.com/gpu=GPU-1", "gpu.gpuvet.dev/claim=" + claim + "-gpu-0000-01-00-0"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("IDs (-want +got):\n%s", diff)
	}

	container, err := inject(h.dirs(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range container.Linux.Devices {
		got = append(got, fmt.Sprintf("%s %s %d:%d", d.Path, d.Type, d.Major, d.Minor))
	}
	if diff := cmp.Diff([]string{"/dev/nvidiactl c 1:3", "/dev/nvidia1 c 1:3"}, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	env := []string{"GPUVET_DEVICE_GPU_0000_01_00_0=GPU-1", "GPUVET_GPU_UUIDS=GPU-1", "LD_LIBRARY_PATH=/opt/app", "NVIDIA_VISIBLE_DEVICES=void"}
	if diff := cmp.Diff(env, environment(t, h.dirs(), ids...)); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestDeviceIsReadyWhenARuntimeCanInjectIt(t *testing.T) {
	for _, c := range []struct {
		name  string
		specs map[string]string // with DEV for the folder of the nodes
		want  []string          // in the error, with ROOT for that of the node; none: ready
	}{
		{
			"no spec", nil,
			[]string{"nvidia.com/gpu=GPU-0: no CDI spec in ROOT/etc/cdi, ROOT/run/cdi names it; enable nvidia-cdi-refresh.service", "nvidia-ctk cdi generate"},
		},
		{"specs for other GPUs", map[string]string{"etc/cdi/a.yaml": spec("DEV", 1)}, []string{"no CDI spec"}},
		{
			"spec of another kind",
			map[string]string{"etc/cdi/a.yaml": strings.Replace(spec("DEV", 0), "nvidia.com/gpu", "management.nvidia.com/gpu", 1)},
			[]string{"no CDI spec"},
		},
		{
			"spec that is torn",
			map[string]string{"etc/cdi/a.yaml": spec("DEV", 0)[:60]},
			[]string{"no CDI spec", "names it (", "ROOT/etc/cdi/a.yaml"},
		},
		{"torn spec beside a good one", map[string]string{"etc/cdi/a.yaml": "{", "etc/cdi/b.yaml": spec("DEV", 0)}, nil},
		{"file that no runtime reads", map[string]string{"etc/cdi/a.yaml.tmp": spec("DEV", 0)}, []string{"no CDI spec"}},
		{
			"GPU without its device node",
			map[string]string{"etc/cdi/a.yaml": spec("DEV", 0), "dev/nvidia0": ""},
			[]string{"ROOT/etc/cdi/a.yaml names DEV/nvidia0, which is no device node"},
		},
		{
			"spec for a driver that is gone",
			map[string]string{"etc/cdi/a.yaml": spec("DEV/old", 0)},
			[]string{"ROOT/etc/cdi/a.yaml names DEV/old/nvidia0, which does not exist"},
		},
		{
			"two specs of one folder",
			map[string]string{"etc/cdi/a.yaml": spec("DEV", 0), "etc/cdi/b.yaml": spec("DEV", 0, 1)},
			[]string{"ROOT/etc/cdi/a.yaml and ROOT/etc/cdi/b.yaml both name it"},
		},
		{
			"two specs of one folder, and a third",
			map[string]string{"etc/cdi/a.yaml": spec("DEV", 0), "etc/cdi/b.yaml": spec("DEV", 0), "run/cdi/c.yaml": spec("DEV", 0)},
			[]string{"both name it"},
		},
		{"later folder counts", map[string]string{"etc/cdi/a.yaml": spec("DEV/old", 0), "run/cdi/a.yaml": spec("DEV", 0)}, nil},
		{"earlier folder does not", map[string]string{"etc/cdi/a.yaml": spec("DEV", 0), "run/cdi/a.yaml": spec("DEV/old", 0)}, []string{"does not exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.node("dev/nvidiactl", "dev/nvidia1")
			if _, missing := c.specs["dev/nvidia0"]; !missing {
				h.node("dev/nvidia0")
			}
			for path, content := range c.specs {
				h.file(path, strings.ReplaceAll(content, "DEV", h.at("dev")))
			}
			s := newSpecs(t, cdi.Options{Mode: cdi.Delegate, Dir: t.TempDir(), SpecDirs: h.dirs()})

			err := s.Ready(gpu(0))
			if _, refused := inject(h.dirs(), "nvidia.com/gpu=GPU-0"); (refused == nil) != (err == nil) {
				t.Errorf("Ready = %v, but a runtime says %v", err, refused)
			}
			if (err == nil) != (len(c.want) == 0) {
				t.Fatalf("Ready = %v, want %q", err, c.want)
			}
			for _, text := range c.want {
				text = strings.NewReplacer("DEV", h.at("dev"), "ROOT", h.root).Replace(text)
				if !strings.Contains(err.Error(), text) {
					t.Errorf("Ready = %v, want %q in it", err, text)
				}
			}
			if _, err2 := s.Write(claim, []cdi.Device{gpu(0)}, ""); (err2 == nil) != (err == nil) {
				t.Errorf("Ready = %v, but Write = %v", err, err2)
			}
		})
	}
}

// A spec that was written before the GPUs had their nodes starts containers
// without them: a runtime finds nothing wrong with it.
func TestSpecWithoutNodesIsNotReady(t *testing.T) {
	h := newHost(t)
	h.file("etc/cdi/nvidia.yaml", `{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "GPU-0", "containerEdits": {"env": ["A=B"]}}]}`)
	s := newSpecs(t, cdi.Options{Mode: cdi.Delegate, Dir: t.TempDir(), SpecDirs: h.dirs()})
	if err := s.Ready(gpu(0)); err == nil || !strings.Contains(err.Error(), "nvidia.yaml has no device node for it") {
		t.Errorf("Ready = %v", err)
	}
	if err := s.Ready(cdi.Device{Name: "gpu-0000-00-00-0"}); err == nil || !strings.Contains(err.Error(), "gpu-0000-00-00-0 has no UUID") {
		t.Errorf("Ready of a GPU without a UUID = %v", err)
	}
}

func TestChangedSpecIsNoticed(t *testing.T) {
	h := newHost(t)
	h.node("dev/nvidiactl", "dev/nvidia0", "dev/nvidia1")
	s := newSpecs(t, cdi.Options{Mode: cdi.Delegate, Dir: t.TempDir(), SpecDirs: h.dirs()})
	ready := func(step string, n int, want bool) {
		t.Helper()
		if err := s.Ready(gpu(n)); (err == nil) != want {
			t.Errorf("%s: Ready of GPU %d = %v, want ready %v", step, n, err, want)
		}
	}
	ready("before there is one", 0, false)
	h.file("run/cdi/nvidia.yaml", spec(h.at("dev"), 0))
	ready("written", 0, true)
	ready("written", 1, false)
	h.file("run/cdi/nvidia.new", spec(h.at("dev"), 1))
	if err := os.Rename(h.at("run/cdi/nvidia.new"), h.at("run/cdi/nvidia.yaml")); err != nil {
		t.Fatal(err)
	}
	ready("replaced", 0, false)
	ready("replaced", 1, true)
	h.file("run/cdi/nvidia.yaml", spec(h.at("dev"), 0, 1))
	ready("written over", 0, true)
	if err := os.Remove(h.at("dev/nvidia0")); err != nil {
		t.Fatal(err)
	}
	ready("node removed", 0, false)
	ready("node removed", 1, true)
	if err := os.Remove(h.at("run/cdi/nvidia.yaml")); err != nil {
		t.Fatal(err)
	}
	ready("removed", 1, false)
}

// In a container, paths of the node begin at another root, and /var/run leads
// there as well.
func TestPathsOfSpecsAreTheNodes(t *testing.T) {
	h := newHost(t)
	h.node("dev/nvidiactl", "dev/nvidia0")
	if err := os.MkdirAll(h.at("var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", h.at("var/run")); err != nil {
		t.Fatal(err)
	}
	h.file("run/cdi/nvidia.yaml", spec("/dev", 0, 1))
	s := newSpecs(t, cdi.Options{Mode: cdi.Delegate, Dir: t.TempDir(), Host: h.root})
	if err := s.Ready(gpu(0)); err != nil {
		t.Error(err)
	}
	want := "nvidia.com/gpu=GPU-1: /run/cdi/nvidia.yaml names /dev/nvidia1, which does not exist;"
	if err := s.Ready(gpu(1)); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Ready = %v, want %s", err, want)
	}
}

func TestManyMayAskAtOnce(t *testing.T) {
	h := newHost(t)
	h.file("run/cdi/nvidia.yaml", spec(h.at("dev"), 0))
	s := newSpecs(t, cdi.Options{Mode: cdi.Delegate, Dir: t.TempDir(), SpecDirs: h.dirs()})
	var wg sync.WaitGroup
	for range 8 { // what is shared is seen by the race detector
		wg.Go(func() {
			if err := s.Ready(gpu(0)); err == nil || !strings.Contains(err.Error(), "nvidia0, which does not exist") {
				t.Errorf("Ready = %v", err)
			}
		})
	}
	wg.Wait()
}
