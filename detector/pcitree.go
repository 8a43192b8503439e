package detector

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// PCITree knows which GPUs are behind which bridges, so that an error that a
// bridge reports finds the GPUs it is about. A GPU that was seen once stays
// known: what takes it off the bus takes it out of /sys too. Safe for concurrent
// use.
type PCITree struct {
	devices string

	mu     sync.Mutex
	behind map[string]map[string]bool // GPUs by the address of the GPU or of a bridge above it
}

// PCIDevices is where the kernel lists the machine's PCI devices.
const PCIDevices = "/sys/bus/pci/devices"

// NewPCITree makes the tree of the GPUs that the folder lists, [PCIDevices] or one
// like it.
func NewPCITree(devices string) (*PCITree, error) {
	t := &PCITree{devices: devices, behind: map[string]map[string]bool{}}
	return t, t.Refresh()
}

// Refresh looks for GPUs again, as after the driver was loaded anew.
func (t *PCITree) Refresh() error {
	entries, err := os.ReadDir(t.devices)
	if err != nil {
		return fmt.Errorf("list PCI devices: %w", err)
	}
	for _, entry := range entries {
		if !isGPU(filepath.Join(t.devices, entry.Name())) {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(t.devices, entry.Name()))
		if err != nil {
			continue // gone since
		}
		t.add(entry.Name(), path)
	}
	return nil
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// add enters a GPU under itself and each bridge on the way to it. The path of a
// device in /sys names them all: /sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0.
func (t *PCITree) add(gpu, path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for step := range strings.SplitSeq(path, "/") {
		if !pciAddress.MatchString(step) {
			continue
		}
		if t.behind[step] == nil {
			t.behind[step] = map[string]bool{}
		}
		t.behind[step][gpu] = true
	}
}

// Behind gives the GPUs at or behind an address, in order: none if there is no
// GPU.
func (t *PCITree) Behind(pci string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.behind[pci]))
}

// isGPU reports whether a device is NVIDIA's (vendor 10de) and of class 0300 or
// 0302: display controllers, with and without a display.
func isGPU(device string) bool {
	vendor, _ := os.ReadFile(filepath.Join(device, "vendor"))
	class, _ := os.ReadFile(filepath.Join(device, "class"))
	kind := strings.TrimSpace(string(class))
	return strings.TrimSpace(string(vendor)) == "0x10de" && (strings.HasPrefix(kind, "0x0300") || strings.HasPrefix(kind, "0x0302"))
}
