package fake

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"gpuvet.dev/nvml"
)

// profile is a model of GPU as it stands in an eight-GPU baseboard.
type profile struct {
	name, architecture, vbios string
	memory                    uint64
	pci                       [8]string
	clocks                    Clocks
	idle                      Values
}

const mebibyte = 1 << 20

func profiles() map[string]profile {
	return map[string]profile{
		"h100": {
			name: "NVIDIA H100 80GB HBM3", architecture: "Hopper", vbios: "96.00.A5.00.01",
			memory: 81559 * mebibyte,
			pci: [8]string{
				"0000:18:00.0", "0000:2a:00.0", "0000:3a:00.0", "0000:5d:00.0",
				"0000:9a:00.0", "0000:ab:00.0", "0000:ba:00.0", "0000:db:00.0",
			},
			clocks: Clocks{SM: 1980e6, Memory: 2619e6, Video: 1545e6},
			idle:   idle(31, 39, 72, 700, 551*mebibyte),
		},
		"a100": {
			name: "NVIDIA A100-SXM4-80GB", architecture: "Ampere", vbios: "92.00.45.00.03",
			memory: 81920 * mebibyte,
			pci: [8]string{
				"0000:07:00.0", "0000:0f:00.0", "0000:47:00.0", "0000:4e:00.0",
				"0000:87:00.0", "0000:90:00.0", "0000:b7:00.0", "0000:bd:00.0",
			},
			clocks: Clocks{SM: 1410e6, Memory: 1593e6, Video: 1290e6},
			idle:   idle(29, 33, 61, 400, 690*mebibyte),
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

// Profiles lists the known models of GPU.
func Profiles() []string { return slices.Sorted(maps.Keys(profiles())) }

// Node gives n GPUs (at most 8) of a known profile, idle, with nothing
// happening to them. The driver is of branch 570.
func Node(name string, n int) (*Scenario, error) {
	p, ok := profiles()[name]
	if !ok {
		return nil, fmt.Errorf("profile %q: expected one of %s", name, list(Profiles()))
	}
	if n < 0 || n > len(p.pci) {
		return nil, fmt.Errorf("%d GPUs: expected 0 to %d", n, len(p.pci))
	}
	s := &Scenario{Driver: DriverInfo{Version: defaultDriver, CUDA: defaultCUDA}}
	for i := range n {
		s.GPUs = append(s.GPUs, p.gpu(name, i))
	}
	return s, nil
}

func (p profile) gpu(profile string, i int) GPU {
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d", profile, i))
	return GPU{
		GPU: nvml.GPU{
			PCI:          p.pci[i],
			UUID:         fmt.Sprintf("GPU-%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]),
			Name:         p.name,
			Architecture: p.architecture,
			Serial:       fmt.Sprintf("16%011d", uint64(id[16])<<24|uint64(id[17])<<16|uint64(id[18])<<8|uint64(id[19])),
			VBIOS:        p.vbios,
			Minor:        i,
			MemoryBytes:  p.memory,
		},
		Start:  maps.Clone(p.idle),
		Clocks: p.clocks,
	}
}
