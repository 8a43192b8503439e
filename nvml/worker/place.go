//go:build cgo

package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gpuvet.dev/nvml"
)

// place tells where the kernel has a GPU: its NUMA node, absent if it has none
// (-1 in sysfs), and the PCIe root complex that it is below, "pci0000:64". Neither
// touches the GPU.
func place(sysfs, pci string) (node nvml.Maybe[int], root string) {
	device := filepath.Join(sysfs, "bus/pci/devices", pci)
	if text, err := os.ReadFile(filepath.Join(device, "numa_node")); err == nil {
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		node = small(n, err == nil, 0, maxNUMANode)
	}
	if target, err := os.Readlink(device); err == nil {
		if below := rootForm.FindStringSubmatch(target); below != nil {
			root = below[1]
		}
	}
	return node, root
}

// maxNUMANode is the highest number of a NUMA node: CONFIG_NODES_SHIFT of the kernel
// is 10 at most.
const maxNUMANode = 1023

// rootForm finds the root complex in what a link to a device says, such as
// ../../../devices/pci0000:64/0000:64:01.0/0000:65:00.0. One that is not right
// below /sys/devices, as on Hyper-V, is none: Kubernetes' library for DRA drivers
// has it so, and drivers that share a root must agree.
var rootForm = regexp.MustCompile(`^(?:\.\./)+devices/(pci[0-9a-f]{4,8}:[0-9a-f]{2})/`)
