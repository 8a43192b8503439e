package cdi_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	cdilib "tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"

	"gpuvet.dev/dra/cdi"
)

const version = "580.95.05"

// library is as much of a shared library as its soname needs.
func library(soname string) string {
	names := append([]byte("\x00"+soname), 0)
	var header elf.Header64
	var sections [3]elf.Section64 // none, the names, what the linker reads
	var dynamic [2]elf.Dyn64
	at := func(size int) uint64 { return uint64(binary.Size(header) + size) }
	header = elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
		Shoff: at(0), Shentsize: 64, Shnum: 3, Shstrndx: 1,
	}
	dynamic[0] = elf.Dyn64{Tag: int64(elf.DT_SONAME), Val: 1}
	sections[1] = elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: at(binary.Size(sections)), Size: uint64(len(names))}
	sections[2] = elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Off: at(binary.Size(sections) + len(names)), Size: uint64(binary.Size(dynamic)), Link: 1, Entsize: 16}
	var b bytes.Buffer
	for _, part := range []any{header, sections, names, dynamic} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return b.String()
}

// driver installs a driver below a root, as NVIDIA's installer does it on RHEL.
func (h host) driver(root string) cdi.Driver {
	lib := path.Join(root, "usr/lib64")
	for file, soname := range map[string]string{
		"libcuda.so." + version:                  "libcuda.so.1",
		"libnvidia-ml.so." + version:             "libnvidia-ml.so.1",
		"libnvidia-gpucomp.so." + version:        "libnvidia-gpucomp.so." + version,
		"libnvidia-nvvm.so." + version:           "libnvidia-nvvm.so.4",
		"libnvidia-nvvm70.so.4":                  "libnvidia-nvvm70.so.4",
		"libnvidia-ptxjitcompiler.so." + version: "libnvidia-ptxjitcompiler.so.1",
		"libnvidia-eglcore.so." + version:        "libnvidia-eglcore.so." + version, // graphics
		"libnvidia-nvvm.so.570.195.03":           "libnvidia-nvvm.so.4",             // of an older driver
	} {
		h.file(path.Join(lib, file), library(soname))
	}
	h.file(path.Join(root, "usr/lib/nvidia/bin/nvidia-smi"), "#!/bin/sh\n")
	h.link(path.Join(root, "usr/bin/nvidia-smi"), "/etc/alternatives/nvidia-smi")
	h.link(path.Join(root, "etc/alternatives/nvidia-smi"), "/usr/lib/nvidia/bin/nvidia-smi")
	return cdi.Driver{Library: h.at(path.Join(lib, "libnvidia-ml.so."+version)), Root: h.at(root)}
}

func (h host) link(name, target string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.at(name)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(target, h.at(name)); err != nil {
		h.t.Fatal(err)
	}
}

// minimal are specs that take devices and libraries from a driver.
func (h host) minimal(root string, driver cdi.Driver) *cdi.Specs {
	h.t.Helper()
	return newSpecs(h.t, cdi.Options{
		Mode: cdi.Minimal, Dir: h.at("run/cdi"), Host: root,
		Driver: func() (cdi.Driver, error) { return driver, nil },
	})
}

// written reads the spec of the claim.
func (h host) written() *specs.Spec {
	h.t.Helper()
	spec, err := cdilib.ReadSpec(h.at("run/cdi/gpu.gpuvet.dev-claim_"+claim+".json"), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return spec.Spec
}

func TestMinimalSpecNamesTheNodesFiles(t *testing.T) {
	h := newHost(t)
	driver := h.driver("opt/nvidia")
	h.node("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools", "dev/nvidia0", "dev/nvidia1")
	write(t, h.minimal(h.root, driver), claim, []cdi.Device{gpu(0), gpu(1)})
	got := h.written()

	nodes := func(paths ...string) []*specs.DeviceNode {
		var all []*specs.DeviceNode
		for _, p := range paths {
			all = append(all, &specs.DeviceNode{Path: p, Permissions: "rw"})
		}
		return all
	}
	if diff := cmp.Diff(nodes("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"), got.ContainerEdits.DeviceNodes); diff != "" {
		t.Errorf("device nodes of every container (-want +got):\n%s", diff)
	}
	for i, d := range got.Devices {
		if diff := cmp.Diff(nodes(fmt.Sprintf("/dev/nvidia%d", i)), d.ContainerEdits.DeviceNodes); diff != "" {
			t.Errorf("device nodes of %s (-want +got):\n%s", d.Name, diff)
		}
	}

	multiarch := map[string]string{"amd64": "/usr/lib/x86_64-linux-gnu", "arm64": "/usr/lib/aarch64-linux-gnu"}[runtime.GOARCH]
	var want []string
	for _, names := range [][2]string{
		{"libcuda.so." + version, "libcuda.so"},
		{"libcuda.so." + version, "libcuda.so.1"},
		{"libcuda.so." + version, "libcuda.so." + version},
		{"libnvidia-gpucomp.so." + version, "libnvidia-gpucomp.so." + version},
		{"libnvidia-ml.so." + version, "libnvidia-ml.so.1"},
		{"libnvidia-ml.so." + version, "libnvidia-ml.so." + version},
		{"libnvidia-nvvm.so." + version, "libnvidia-nvvm.so.4"},
		{"libnvidia-nvvm.so." + version, "libnvidia-nvvm.so." + version},
		{"libnvidia-nvvm70.so.4", "libnvidia-nvvm70.so.4"},
		{"libnvidia-ptxjitcompiler.so." + version, "libnvidia-ptxjitcompiler.so.1"},
		{"libnvidia-ptxjitcompiler.so." + version, "libnvidia-ptxjitcompiler.so." + version},
	} {
		for _, dir := range []string{multiarch, "/usr/lib64", "/usr/local/nvidia/lib64"} {
			want = append(want, "/opt/nvidia/usr/lib64/"+names[0]+" at "+dir+"/"+names[1])
		}
	}
	want = append(want, "/opt/nvidia/usr/lib/nvidia/bin/nvidia-smi at /usr/bin/nvidia-smi")
	var mounts []string
	for _, m := range got.ContainerEdits.Mounts {
		mounts = append(mounts, m.HostPath+" at "+m.ContainerPath)
		if !slices.Contains(m.Options, "ro") {
			t.Errorf("%s can be written to: %q", m.ContainerPath, m.Options)
		}
	}
	if diff := cmp.Diff(want, mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

// A driver container makes the device nodes in its own /dev.
func TestContainersOfTwoClaimsHaveTheDevicesOfBoth(t *testing.T) {
	h := newHost(t)
	driver := h.driver("run/nvidia/driver")
	for _, n := range []string{"nvidiactl", "nvidia-uvm", "nvidia0", "nvidia3"} {
		h.node("run/nvidia/driver/dev/" + n)
	}
	s := h.minimal("/", driver)
	ids := slices.Concat(
		write(t, s, claim, []cdi.Device{gpu(0)}),
		write(t, s, another, []cdi.Device{gpu(3)}))

	container, err := inject(h.dirs(), ids...)
	if err != nil {
		t.Fatal(err)
	}
	var devices []string
	for _, d := range container.Linux.Devices {
		devices = append(devices, fmt.Sprintf("%s %s %d:%d", d.Path, d.Type, d.Major, d.Minor))
	}
	want := []string{"/dev/nvidia-uvm c 1:3", "/dev/nvidia0 c 1:3", "/dev/nvidia3 c 1:3", "/dev/nvidiactl c 1:3"}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(devices))); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	for _, r := range container.Linux.Resources.Devices {
		if !r.Allow || r.Access != "rw" {
			t.Errorf("rule %+v, want reading and writing allowed", r)
		}
	}
	var cuda int
	for _, m := range container.Mounts {
		if m.Destination == "/usr/lib64/libcuda.so.1" {
			cuda++
			if _, err := os.Stat(m.Source); err != nil {
				t.Error(err)
			}
		}
	}
	if cuda != 1 {
		t.Errorf("libcuda.so.1 is mounted %d times in one place", cuda)
	}
	if !slices.Contains(container.Process.Env, "LD_LIBRARY_PATH=/opt/app") {
		t.Errorf("the image's LD_LIBRARY_PATH is lost: %q", container.Process.Env)
	}
}

func TestMIGDeviceHasItsCapabilities(t *testing.T) {
	h := newHost(t)
	driver := h.driver("")
	h.node("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia0", "dev/nvidia-caps/nvidia-cap30", "dev/nvidia-caps/nvidia-cap31")
	h.file("proc/driver/nvidia/capabilities/gpu0/mig/gi3/access", "DeviceFileMinor: 30\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	h.file("proc/driver/nvidia/capabilities/gpu0/mig/gi3/ci0/access", "DeviceFileMinor: 31\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	h.file("proc/driver/nvidia/capabilities/gpu0/mig/gi4/access", "DeviceFileMinor: 39\n")
	h.file("proc/driver/nvidia/capabilities/gpu0/mig/gi4/ci0/access", "DeviceFileMode: 292\n")
	h.file("proc/driver/nvidia/capabilities/gpu0/mig/gi4/ci1/access", "DeviceFileMinor: 40\n")
	s := h.minimal(h.root, driver)
	mig := func(gi, ci int) cdi.Device {
		return cdi.Device{Name: "mig", UUID: "MIG-1", MIG: &cdi.Instance{GPUInstance: gi, ComputeInstance: ci}}
	}

	write(t, s, claim, []cdi.Device{mig(3, 0)})
	var got []string
	for _, n := range h.written().Devices[0].ContainerEdits.DeviceNodes {
		got = append(got, n.Path)
	}
	want := []string{"/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap30", "/dev/nvidia-caps/nvidia-cap31"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("device nodes (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		d    cdi.Device
		want string
	}{
		{mig(5, 0), "mig: /proc/driver/nvidia/capabilities/gpu0/mig/gi5/access does not exist"},
		{mig(4, 0), "mig: /proc/driver/nvidia/capabilities/gpu0/mig/gi4/ci0/access has no DeviceFileMinor"},
		{mig(4, 1), "mig: /dev/nvidia-caps/nvidia-cap39 does not exist; nvidia-modprobe makes it"},
	} {
		if err := s.Ready(c.d); err == nil || err.Error() != c.want {
			t.Errorf("Ready = %v, want %s", err, c.want)
		}
	}
}

func TestGPUIsReadyOnceItsDeviceNodesExist(t *testing.T) {
	h := newHost(t)
	s := h.minimal(h.root, h.driver(""))
	for _, step := range []struct{ want, node string }{
		{"/dev/nvidiactl does not exist; nvidia-modprobe makes it", "dev/nvidiactl"},
		{"/dev/nvidia-uvm does not exist; nvidia-modprobe makes it", "dev/nvidia-uvm"},
		{"gpu-0000-07-00-0: /dev/nvidia7 does not exist; nvidia-modprobe makes it", "dev/nvidia7"},
	} {
		if err := s.Ready(gpu(7)); err == nil || err.Error() != step.want {
			t.Errorf("Ready = %v, want %s", err, step.want)
		}
		h.node(step.node)
	}
	if err := s.Ready(gpu(7)); err != nil {
		t.Error(err)
	}
	unknown := gpu(7)
	unknown.Minor = -1
	if err := s.Ready(unknown); err == nil || !strings.Contains(err.Error(), "the driver does not say which device node it has") {
		t.Errorf("Ready without a minor number = %v", err)
	}
}

func TestDriverThatCannotBeMountedIsNotReady(t *testing.T) {
	absent := errors.New("no usable libnvidia-ml.so.1")
	for name, c := range map[string]struct {
		spoil func(host, *cdi.Driver) error
		want  string
	}{
		"no driver": {
			func(host, *cdi.Driver) error { return absent },
			absent.Error(),
		},
		"no CUDA": {
			func(h host, _ *cdi.Driver) error {
				return errors.Join(os.Remove(h.at("usr/lib64/libcuda.so."+version)), nil)
			},
			"/usr/lib64/libcuda.so." + version + " does not exist",
		},
		"library that a runtime left empty": {
			func(h host, _ *cdi.Driver) error {
				h.file("usr/lib64/libnvidia-nvvm.so."+version, "")
				return nil
			},
			"/usr/lib64/libnvidia-nvvm.so." + version + " is no library (EOF)",
		},
		"folder in place of a library": {
			func(h host, _ *cdi.Driver) error {
				h.file("usr/lib64/libcudadebugger.so."+version+"/x", "")
				return nil
			},
			"/usr/lib64/libcudadebugger.so." + version + " is not a file",
		},
		"library without a version": {
			func(h host, d *cdi.Driver) error {
				h.file("usr/lib64/libnvidia-ml.so.1", library("libnvidia-ml.so.1"))
				d.Library = h.at("usr/lib64/libnvidia-ml.so.1")
				return nil
			},
			"/usr/lib64/libnvidia-ml.so.1 has no version in its name",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			driver := h.driver("")
			h.node("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia0")
			err := c.spoil(h, &driver)
			s := newSpecs(t, cdi.Options{
				Mode: cdi.Minimal, Dir: h.at("run/cdi"), Host: h.root,
				Driver: func() (cdi.Driver, error) { return driver, err },
			})
			if err := s.Ready(gpu(0)); err == nil || err.Error() != c.want {
				t.Errorf("Ready = %v, want %s", err, c.want)
			}
			if _, err := s.Write(claim, []cdi.Device{gpu(0)}, ""); err == nil || err.Error() != "write CDI spec of claim "+claim+": "+c.want {
				t.Errorf("Write = %v", err)
			}
			want(t, h.at("run/cdi"))
		})
	}
}

// eight are the GPUs of a large node, and specs for them in a mode.
func eight(b *testing.B, mode cdi.Mode) (*cdi.Specs, []cdi.Device) {
	b.Helper()
	h := newHost(b)
	driver := h.driver("")
	h.node("dev/nvidiactl", "dev/nvidia-uvm")
	var devices []cdi.Device
	var gpus []int
	for n := range 8 {
		h.node(fmt.Sprintf("dev/nvidia%d", n))
		devices, gpus = append(devices, gpu(n)), append(gpus, n)
	}
	h.file("etc/cdi/nvidia.yaml", spec("/dev", gpus...))
	for n := range 100 { // claims of another driver
		h.file(fmt.Sprintf("run/cdi/other-%d.yaml", n), spec("/dev", 100+n))
	}
	return newSpecs(b, cdi.Options{
		Mode: mode, Dir: h.at("run/cdi"), Host: h.root, SpecDirs: []string{"/etc/cdi", "/run/cdi"},
		Driver: func() (cdi.Driver, error) { return driver, nil },
	}), devices
}

func BenchmarkReady(b *testing.B) {
	for _, mode := range []cdi.Mode{cdi.Delegate, cdi.Minimal} {
		b.Run(string(mode), func(b *testing.B) {
			s, devices := eight(b, mode)
			for b.Loop() {
				if err := s.Ready(devices[0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteAndRemove(b *testing.B) {
	for _, mode := range []cdi.Mode{cdi.Delegate, cdi.Minimal, cdi.None} {
		b.Run(string(mode), func(b *testing.B) {
			s, devices := eight(b, mode)
			for b.Loop() {
				write(b, s, claim, devices)
				if err := s.Remove(claim); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
