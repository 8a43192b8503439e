package cdi

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"tags.cncf.io/container-device-interface/specs-go"
)

// installation is an installed driver on a node.
type installation struct {
	host   string // where the node's root is seen
	driver Driver
}

// libraries are what CUDA and NVML load: compute_libs and utility_libs in
// NVIDIA/libnvidia-container, src/nvc_info.c, less OpenCL and NVSwitch. A driver
// has those of its time, and libcuda always.
var libraries = []string{
	"libcuda.so.VERSION",
	"libcudadebugger.so.VERSION",
	"libnvidia-gpucomp.so.VERSION",
	"libnvidia-ml.so.VERSION",
	"libnvidia-nvvm.so.VERSION",
	"libnvidia-nvvm70.so.4", // named without the driver's version, all by itself
	"libnvidia-pkcs11.so.VERSION",
	"libnvidia-pkcs11-openssl3.so.VERSION",
	"libnvidia-ptxjitcompiler.so.VERSION",
	"libnvidia-tileiras.so.VERSION",
}

// libraryDirs are where a container finds them without a hook that would rebuild
// its linker's cache, and without LD_LIBRARY_PATH: a spec would replace the
// image's own, in which many keep their frameworks.
var libraryDirs = []string{
	multiarch[runtime.GOARCH], // where glibc looks by itself in Debian and Ubuntu
	"/usr/lib64",              // and in RHEL, SUSE, Amazon Linux
	// In LD_LIBRARY_PATH of all images that are made from NVIDIA's. Triton finds
	// libcuda through that variable alone.
	"/usr/local/nvidia/lib64",
}

var multiarch = map[string]string{
	"amd64": "/usr/lib/x86_64-linux-gnu",
	"arm64": "/usr/lib/aarch64-linux-gnu",
}

// smi are the places of nvidia-smi within a driver's root.
var smi = []string{"/usr/bin/nvidia-smi", "/bin/nvidia-smi", "/usr/local/bin/nvidia-smi"}

// minimal gives the device nodes and the mounts that CUDA needs.
func (in installation) minimal(devices []Device) (edits, error) {
	nodes, err := in.nodes("/dev/nvidiactl", "/dev/nvidia-uvm")
	if err != nil {
		return edits{}, err
	}
	if tools, err := in.nodes("/dev/nvidia-uvm-tools"); err == nil { // for profilers
		nodes = append(nodes, tools...)
	}
	mounts, err := in.mounts()
	if err != nil {
		return edits{}, err
	}
	all := edits{common: specs.ContainerEdits{DeviceNodes: nodes, Mounts: mounts}}
	for _, d := range devices {
		nodes, err := in.device(d)
		if err != nil {
			return edits{}, fmt.Errorf("%s: %w", d.Name, err)
		}
		all.devices = append(all.devices, part{edits: specs.ContainerEdits{DeviceNodes: nodes}})
	}
	return all, nil
}

// device gives the nodes of a GPU, or of a MIG device and the GPU it is on.
func (in installation) device(d Device) ([]*specs.DeviceNode, error) {
	if d.Minor < 0 {
		return nil, errors.New("the driver does not say which device node it has")
	}
	paths := []string{fmt.Sprintf("/dev/nvidia%d", d.Minor)}
	if d.MIG != nil {
		gi := fmt.Sprintf("gpu%d/mig/gi%d", d.Minor, d.MIG.GPUInstance)
		for _, capability := range []string{gi, fmt.Sprintf("%s/ci%d", gi, d.MIG.ComputeInstance)} {
			minor, err := in.capability(capability)
			if err != nil {
				return nil, err
			}
			paths = append(paths, "/dev/nvidia-caps/nvidia-cap"+minor)
		}
	}
	return in.nodes(paths...)
}

// capability gives the minor number of the node that stands for a capability.
// The file has a line "DeviceFileMinor: N" (NVIDIA, MIG User Guide, "Device Nodes
// and Capabilities").
func (in installation) capability(name string) (string, error) {
	file := "/proc/driver/nvidia/capabilities/" + name + "/access"
	f, err := os.Open(filepath.Join(in.host, file))
	if err != nil {
		return "", fmt.Errorf("%s %w", file, cause(err))
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if minor, ok := strings.CutPrefix(lines.Text(), "DeviceFileMinor:"); ok {
			return strings.TrimSpace(minor), nil
		}
	}
	return "", errors.Join(fmt.Errorf("%s has no DeviceFileMinor", file), lines.Err())
}

// nodes gives device nodes of the node's /dev, or of that of a driver container,
// which makes them there. Their numbers are left to the runtime, which looks
// when it starts the container: that of nvidia-uvm may be another after a reload.
func (in installation) nodes(paths ...string) ([]*specs.DeviceNode, error) {
	root := in.driver.Root
	if device(filepath.Join(root, "/dev/nvidiactl")) != nil {
		root = in.host
	}
	nodes := make([]*specs.DeviceNode, len(paths))
	for i, p := range paths {
		seen := filepath.Join(root, p)
		if err := device(seen); err != nil {
			return nil, fmt.Errorf("%s %w; nvidia-modprobe makes it", onNode(in.host, seen), err)
		}
		nodes[i] = &specs.DeviceNode{Path: p, Permissions: "rw"}
		if path := onNode(in.host, seen); path != p {
			nodes[i].HostPath = path
		}
	}
	return nodes, nil
}

// mounts gives each library under the names by which it is loaded: that of its
// file, and its soname. It is mounted several times because a link in a container
// takes a hook. nvidia-smi is for people, and may be missing.
func (in installation) mounts() ([]*specs.Mount, error) {
	folder, file := filepath.Split(in.driver.Library)
	version, ok := strings.CutPrefix(file, "libnvidia-ml.so.")
	if !ok || !strings.Contains(version, ".") {
		return nil, fmt.Errorf("%s has no version in its name", onNode(in.host, in.driver.Library))
	}
	var mounts []*specs.Mount
	for i, library := range libraries {
		file := filepath.Join(folder, strings.Replace(library, "VERSION", version, 1))
		source, err := in.file(file)
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var names []string
		if err == nil {
			names, err = loadedAs(source, filepath.Base(file))
		}
		if err != nil {
			return nil, fmt.Errorf("%s %w", onNode(in.host, file), cause(err))
		}
		for _, name := range names {
			for _, dir := range libraryDirs {
				mounts = append(mounts, in.mount(source, path.Join(dir, name)))
			}
		}
	}
	for _, place := range smi {
		if source, err := in.file(filepath.Join(in.driver.Root, place)); err == nil {
			return append(mounts, in.mount(source, smi[0])), nil
		}
	}
	return mounts, nil
}

func (in installation) mount(source, target string) *specs.Mount {
	return &specs.Mount{
		HostPath:      onNode(in.host, source),
		ContainerPath: target,
		Options:       []string{"ro", "nosuid", "nodev", "bind"},
	}
}

// file gives the regular file that a path of the driver leads to, with links as
// they are meant in the driver's root.
func (in installation) file(name string) (string, error) {
	rel, err := filepath.Rel(in.driver.Root, name)
	if err != nil {
		return "", err
	}
	seen, err := securejoin.SecureJoin(in.driver.Root, rel)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(seen)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a file")
	}
	return seen, err
}

// loadedAs gives the names by which programs ask the linker for a library: those
// of its file and of its ELF header, and the one without a version that many
// have for CUDA.
func loadedAs(source, file string) ([]string, error) {
	library, err := elf.Open(source)
	if err != nil {
		return nil, fmt.Errorf("is no library (%w)", cause(err))
	}
	defer library.Close()
	names, err := library.DynString(elf.DT_SONAME)
	if err != nil {
		return nil, fmt.Errorf("is no library (%w)", err)
	}
	names = append(names, file)
	if strings.HasPrefix(file, "libcuda.so.") {
		names = append(names, "libcuda.so")
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
