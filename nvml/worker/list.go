//go:build cgo

package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml/wire"
)

// list lists the driver and its GPUs without touching one.
func (s *session) list() (*wire.List, error) {
	if now := loading(s.o.Sysfs); now.inode != s.loading.inode {
		return nil, &callError{call: fmt.Sprintf("list: this worker began with %s, and now there is %s", s.loading, now), kind: wire.KindRenewed}
	}
	version, err := s.driverVersion()
	if err != nil {
		return nil, err
	}
	gpus, err := s.addresses()
	if err != nil {
		return nil, err
	}
	l := &wire.List{Driver: version, CUDA: s.cudaVersion(), Load: module{version, s.loading.inode}.String(), GPUs: gpus}
	if s.loading.inode == 0 {
		// Without sysfs, another loading of the same version cannot be told.
		l.Load = version
	}
	return l, nil
}

func (s *session) driverVersion() (string, error) {
	const call = "nvmlSystemGetDriverVersion"
	if !s.lib.has(call) {
		return s.loading.version, nil
	}
	version, code := s.lib.SystemGetDriverVersion()
	if code != binding.SUCCESS {
		return "", failed(call, code)
	}
	return version, nil
}

// cudaVersion is the highest that the driver supports, "12.8"; empty if unknown.
func (s *session) cudaVersion() string {
	if !s.lib.has("nvmlSystemGetCudaDriverVersion_v2") {
		return ""
	}
	n, code := s.lib.SystemGetCudaDriverVersion_v2()
	if code != binding.SUCCESS || n <= 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", n/1000, n%1000/10)
}

// addresses are those of the GPUs that the driver has, in PCI order: what is
// bound to it in sysfs, where one that is lost or hangs stays.
func (s *session) addresses() ([]string, error) {
	bound := filepath.Join(s.o.Sysfs, "bus/pci/drivers/nvidia")
	entries, err := os.ReadDir(bound)
	if errors.Is(err, fs.ErrNotExist) {
		return s.byIndex()
	}
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	excluded := s.excluded()
	gpus := []string{}
	for _, entry := range entries {
		pci := entry.Name()
		if addressForm.MatchString(pci) && s.isGPU(bound, pci) && !slices.Contains(excluded, pci) {
			gpus = append(gpus, pci)
		}
	}
	slices.Sort(gpus)
	return gpus, nil
}

var addressForm = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// isGPU reports whether a function is a display or 3D controller; the driver
// serves others too.
func (s *session) isGPU(bound, pci string) bool {
	class, err := os.ReadFile(filepath.Join(s.o.Sysfs, "bus/pci/devices", pci, "class"))
	if err != nil {
		class, err = os.ReadFile(filepath.Join(bound, pci, "class"))
	}
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(class)), 0, 32)
	return err == nil && (n>>8 == 0x0300 || n>>8 == 0x0302)
}

// excluded are the addresses of the GPUs that the driver is told to leave alone.
func (s *session) excluded() []string {
	if !s.lib.has("nvmlGetExcludedDeviceCount") || !s.lib.has("nvmlGetExcludedDeviceInfoByIndex") {
		return nil
	}
	n, code := s.lib.GetExcludedDeviceCount()
	if code != binding.SUCCESS {
		return nil
	}
	var all []string
	for i := range n {
		if info, code := s.lib.GetExcludedDeviceInfoByIndex(i); code == binding.SUCCESS {
			all = append(all, address(info.PciInfo))
		}
	}
	return all
}

// byIndex lists the GPUs by asking each for its address. A lost one has the
// address that it had when it last could tell.
func (s *session) byIndex() ([]string, error) {
	for _, function := range []string{"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetPciInfo_v3"} {
		if !s.lib.has(function) {
			return nil, failed(function, binding.ERROR_FUNCTION_NOT_FOUND)
		}
	}
	n, code := s.lib.DeviceGetCount()
	if code != binding.SUCCESS {
		return nil, failed("nvmlDeviceGetCount_v2", code)
	}
	gpus := []string{}
	for i := range n {
		device, code := s.lib.DeviceGetHandleByIndex(i)
		if code == binding.SUCCESS {
			var info binding.PciInfo
			if info, code = device.GetPciInfo(); code == binding.SUCCESS {
				s.indexed[i] = address(info)
			}
		}
		if err := failed("nvmlDeviceGetHandleByIndex_v2", code); err.kind == wire.KindRenewed {
			return nil, err
		}
		if pci := s.indexed[i]; pci != "" {
			gpus = append(gpus, pci)
		}
	}
	slices.Sort(gpus)
	return slices.Compact(gpus), nil
}

// address is the address of a GPU as the kernel writes it.
func address(info binding.PciInfo) string {
	return fmt.Sprintf("%04x:%02x:%02x.0", info.Domain, info.Bus, info.Device)
}

// module is one loading of the kernel module. Its folder in sysfs gets a new
// inode number each time it is made: kernfs hands numbers out cyclically
// (fs/kernfs/dir.c, idr_alloc_cyclic), and every mount shows the same. The number
// alone tells loadings apart: the version in it cannot be read while the module
// is on its way in, and faults of a loading end with it.
type module struct {
	version string
	inode   uint64
}

// loading is the one that is there now; zero if sysfs does not show it.
func loading(sysfs string) module {
	var stat syscall.Stat_t
	if err := syscall.Stat(filepath.Join(sysfs, "module/nvidia"), &stat); err != nil {
		return module{}
	}
	return module{version: driverVersion(sysfs), inode: stat.Ino}
}

// driverVersion is the version of the loaded module; empty if unknown.
func driverVersion(sysfs string) string {
	version, err := os.ReadFile(filepath.Join(sysfs, "module/nvidia/version"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(version))
}

func (m module) String() string {
	if m.inode == 0 {
		return "no driver"
	}
	return fmt.Sprintf("%s@%d", m.version, m.inode)
}
