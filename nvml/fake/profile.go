package fake

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"gpuvet.dev/nvml"
)

// profile is a model of GPU as it stands in an eight-GPU baseboard or server.
type profile struct {
	name, architecture, vbios string
	memory                    uint64
	pci                       [8]string
	idle                      Values
}

func profiles() map[string]profile {
	return map[string]profile{
		"a100": {
			name: "NVIDIA A100-SXM4-80GB", architecture: "Ampere", vbios: "92.00.45.00.03",
			memory: 81920 * mebibyte,
			pci: [8]string{
				"0000:07:00.0", "0000:0f:00.0", "0000:47:00.0", "0000:4e:00.0",
				"0000:87:00.0", "0000:90:00.0", "0000:b7:00.0", "0000:bd:00.0",
			},
			idle: idle(29, 33, 61, 400, 690*mebibyte),
		},
		"b200": {
			name: "NVIDIA B200", architecture: "Blackwell", vbios: "97.00.82.00.0F",
			memory: 183359 * mebibyte,
			pci: [8]string{
				"0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0",
				"0000:9d:00.0", "0000:c3:00.0", "0000:d1:00.0", "0000:df:00.0",
			},
			idle: idle(30, 32, 142, 1000, 705*mebibyte),
		},
		"h100": {
			name: "NVIDIA H100 80GB HBM3", architecture: "Hopper", vbios: "96.00.A5.00.01",
			memory: 81559 * mebibyte,
			pci: [8]string{
				"0000:18:00.0", "0000:2a:00.0", "0000:3a:00.0", "0000:5d:00.0",
				"0000:9a:00.0", "0000:ab:00.0", "0000:ba:00.0", "0000:db:00.0",
			},
			idle: idle(31, 39, 72, 700, 551*mebibyte),
		},
		"h200": {
			name: "NVIDIA H200", architecture: "Hopper", vbios: "96.00.BC.00.01",
			memory: 143771 * mebibyte,
			pci: [8]string{
				"0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0",
				"0000:9d:00.0", "0000:c3:00.0", "0000:d1:00.0", "0000:df:00.0",
			},
			idle: idle(30, 37, 76, 700, 615*mebibyte),
		},
		"l40s": {
			name: "NVIDIA L40S", architecture: "Ada", vbios: "95.02.66.00.02",
			memory: 46068 * mebibyte,
			pci: [8]string{
				"0000:16:00.0", "0000:27:00.0", "0000:38:00.0", "0000:5a:00.0",
				"0000:98:00.0", "0000:a8:00.0", "0000:b8:00.0", "0000:d8:00.0",
			},
			idle: withoutMemoryTemperature(idle(28, 0, 33, 350, 522*mebibyte)),
		},
	}
}

func idle(core, memory, power, limit, reserved float64) Values {
	return Values{
		Temperature: nvml.Some(core), MemoryTemperature: nvml.Some(memory),
		Power: nvml.Some(power), PowerLimit: nvml.Some(limit),
		Utilization: nvml.Some(0.0), MemoryUtilization: nvml.Some(0.0),
		MemoryUsed: nvml.Some(0.0), MemoryReserved: nvml.Some(reserved),
		PCIeReplays: nvml.Some(0.0), Wave: nvml.Some(0.04),
	}
}

// withoutMemoryTemperature is for GDDR6, whose temperature NVML does not tell.
func withoutMemoryTemperature(v Values) Values {
	v[MemoryTemperature] = nvml.Maybe[float64]{}
	return v
}

// Profiles lists the known models of GPU.
func Profiles() []string { return slices.Sorted(maps.Keys(profiles())) }

// Node gives n GPUs (at most 16) of a known profile, idle, with nothing
// happening to them. The driver is of branch 570.
func Node(name string, n int) (*Scenario, error) {
	p, ok := profiles()[name]
	if !ok {
		return nil, fmt.Errorf("profile %q: expected one of %s", name, list(Profiles()))
	}
	if n < 0 || n > maxGPUs {
		return nil, fmt.Errorf("%d GPUs: expected 0 to %d", n, maxGPUs)
	}
	s := &Scenario{Driver: DriverInfo{Version: defaultDriver, CUDA: defaultCUDA}}
	for i := range n {
		s.GPUs = append(s.GPUs, p.gpu(name, i))
	}
	return s, nil
}

// gpu gives the i-th GPU of a node. Those behind the eighth are on a second
// baseboard, with a PCI domain of its own.
func (p profile) gpu(profile string, i int) GPU {
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d", profile, i))
	model := models()[profile]
	g := GPU{
		GPU: nvml.GPU{
			PCI:          p.address(i),
			UUID:         fmt.Sprintf("GPU-%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]),
			Name:         p.name,
			Architecture: p.architecture,
			Serial:       fmt.Sprintf("16%011d", uint64(id[16])<<24|uint64(id[17])<<16|uint64(id[18])<<8|uint64(id[19])),
			VBIOS:        p.vbios,
			Minor:        i,
			MemoryBytes:  p.memory,

			Brand:             "Nvidia",
			ComputeCapability: fmt.Sprintf("%d.%d", model.Capability[0], model.Capability[1]),
			AddressingMode:    "HMM", // with the open kernel modules, on a CPU that does not share its page tables
			NUMANode:          nvml.Some(i / 4),
			PCIeRoot:          p.root(i),
		},
		Start: maps.Clone(p.idle),
		Model: model,
	}
	if len(g.Model.MIG) > 0 {
		g.MIG = nvml.Some(false)
	}
	return g
}

func (p profile) address(i int) string {
	return fmt.Sprintf("%04x%s", i/len(p.pci), p.pci[i%len(p.pci)][4:])
}

// root is the root complex of the i-th GPU and the one it makes a pair with: its
// bus is the last one before theirs.
func (p profile) root(i int) string {
	var domain, bus int
	if _, err := fmt.Sscanf(p.address(i&^1), "%x:%x:", &domain, &bus); err != nil {
		panic(err) // it is written above
	}
	return fmt.Sprintf("pci%04x:%02x", domain, bus-1)
}
