//go:build cgo

package worker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// describe tells what does not change about a GPU.
func (s *session) describe(pci string) (*nvml.GPU, error) {
	d := nvml.GPU{PCI: pci, Minor: -1}
	d.NUMANode, d.PCIeRoot = place(s.o.Sysfs, pci)
	err := s.take(pci, func(b *batch) {
		d.UUID = b.text("nvmlDeviceGetUUID", b.device.GetUUID)
		d.Name = b.text("nvmlDeviceGetName", b.device.GetName)
		d.Serial = b.text("nvmlDeviceGetSerial", b.device.GetSerial)
		d.VBIOS = b.text("nvmlDeviceGetVbiosVersion", b.device.GetVbiosVersion)
		if code, ok := asks(b, "nvmlDeviceGetArchitecture", b.device.GetArchitecture); ok {
			d.Architecture = architecture(code)
		}
		if minor, ok := asks(b, "nvmlDeviceGetMinorNumber", b.device.GetMinorNumber); ok {
			d.Minor = minor
		}
		if code, ok := asks(b, "nvmlDeviceGetBrand", b.device.GetBrand); ok {
			d.Brand = brand(code)
		}
		d.ComputeCapability = b.capability()
		if mode, ok := asks(b, "nvmlDeviceGetAddressingMode", b.device.GetAddressingMode); ok {
			d.AddressingMode = addressing(mode)
		}
		var r nvml.Readings
		b.memory(&r)
		d.MemoryBytes = r.MemoryTotal.Value
		mode, ok := asks(b, "nvmlDeviceGetMigMode", func() (int, binding.Return) {
			current, _, code := b.device.GetMigMode()
			return current, code
		})
		if !ok {
			return
		}
		d.MIG = nvml.Some(mode == binding.DEVICE_MIG_ENABLE)
		if d.MIG.Value {
			d.Instances = b.instances(d.MemoryBytes)
		}
	})
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// text asks for a name or number of a GPU; empty if it has none.
func (b *batch) text(function string, call func() (string, binding.Return)) string {
	text, _ := asks(b, function, call)
	if text = strings.TrimSpace(text); strings.Trim(text, "[]") == "N/A" {
		return ""
	}
	return text
}

// instances lists the MIG devices of a GPU. Some may come and go meanwhile: one
// that cannot be told is left out.
func (b *batch) instances(memory uint64) []nvml.Instance {
	most, _ := asks(b, "nvmlDeviceGetMaxMigDeviceCount", b.device.GetMaxMigDeviceCount)
	var all []nvml.Instance
	for i := range most {
		// NOT_FOUND: the indexes have holes.
		device, ok := asks(b, "nvmlDeviceGetMigDeviceHandleByIndex", func() (binding.Device, binding.Return) {
			return b.device.GetMigDeviceHandleByIndex(i)
		})
		if !ok {
			continue
		}
		if instance, ok := b.instance(device, memory); ok {
			all = append(all, instance)
		}
	}
	slices.SortFunc(all, func(x, y nvml.Instance) int {
		return cmp.Or(x.GPUInstance-y.GPUInstance, x.ComputeInstance-y.ComputeInstance)
	})
	return all
}

func (b *batch) instance(device binding.Device, memory uint64) (d nvml.Instance, ok bool) {
	if d.UUID, ok = asks(b, "nvmlDeviceGetUUID", device.GetUUID); !ok {
		return d, false
	}
	if d.GPUInstance, ok = asks(b, "nvmlDeviceGetGpuInstanceId", device.GetGpuInstanceId); !ok {
		return d, false
	}
	if d.ComputeInstance, ok = asks(b, "nvmlDeviceGetComputeInstanceId", device.GetComputeInstanceId); !ok {
		return d, false
	}
	call := "nvmlDeviceGetAttributes_v2"
	if !b.lib.has(call) {
		call = "nvmlDeviceGetAttributes" // of R450; the binding takes what is there
	}
	attributes, known := asks(b, call, device.GetAttributes)
	d.MemoryBytes = attributes.MemorySizeMB << 20
	// The name of a MIG device ends in its profile: "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
	if _, of, ok := strings.Cut(b.text("nvmlDeviceGetName", device.GetName), " MIG "); ok {
		d.Profile = of
	} else if known {
		d.Profile = profile(attributes, memory)
	}
	// Asking for the GPU instance takes rights that a MIG device's reader may lack.
	instance, ok := asks(b, "nvmlDeviceGetGpuInstanceById", func() (binding.GpuInstance, binding.Return) {
		return b.device.GetGpuInstanceById(d.GPUInstance)
	})
	if !ok {
		return d, true
	}
	if info, ok := asks(b, "nvmlGpuInstanceGetInfo", instance.GetInfo); ok {
		d.Start, d.Size = nvml.Some(int(info.Placement.Start)), nvml.Some(int(info.Placement.Size))
	}
	return d, true
}

// profile names what a MIG device is made of, as the driver would: its memory
// in eighths of the GPU's, rounded up, in whole GB of that GPU.
func profile(a binding.DeviceAttributes, memory uint64) string {
	const gibi = 1 << 30
	size := float64(a.MemorySizeMB) / 1024
	if memory > 0 {
		eighths := math.Ceil(float64(a.MemorySizeMB<<20)/float64(memory)*8) / 8
		size = eighths * float64((memory+gibi-1)/gibi)
	}
	name := fmt.Sprintf("%dg.%dgb", a.GpuInstanceSliceCount, int(math.Round(size)))
	if a.ComputeInstanceSliceCount < a.GpuInstanceSliceCount {
		name = fmt.Sprintf("%dc.%s", a.ComputeInstanceSliceCount, name)
	}
	return name
}

// capability is the CUDA compute capability, "9.0"; empty if unknown.
func (b *batch) capability() string {
	version, ok := asks(b, "nvmlDeviceGetCudaComputeCapability", func() ([2]int, binding.Return) {
		major, minor, code := b.device.GetCudaComputeCapability()
		return [2]int{major, minor}, code
	})
	if !ok || version[0] <= 0 || version[1] < 0 {
		return ""
	}
	return fmt.Sprintf("%d.%d", version[0], version[1])
}

// addressing is a mode of addressing in words; empty for one that is newer than this.
func addressing(mode binding.DeviceAddressingMode) string {
	switch binding.DeviceAddressingModeType(mode.Value) {
	case binding.DEVICE_ADDRESSING_MODE_NONE:
		return "None"
	case binding.DEVICE_ADDRESSING_MODE_HMM:
		return "HMM"
	case binding.DEVICE_ADDRESSING_MODE_ATS:
		return "ATS"
	}
	return ""
}

// architecture is the name of a generation; empty for one that is newer than this.
func architecture(code binding.DeviceArchitecture) string {
	switch code {
	case binding.DEVICE_ARCH_KEPLER:
		return "Kepler"
	case binding.DEVICE_ARCH_MAXWELL:
		return "Maxwell"
	case binding.DEVICE_ARCH_PASCAL:
		return "Pascal"
	case binding.DEVICE_ARCH_VOLTA:
		return "Volta"
	case binding.DEVICE_ARCH_TURING:
		return "Turing"
	case binding.DEVICE_ARCH_AMPERE:
		return "Ampere"
	case binding.DEVICE_ARCH_ADA:
		return "Ada"
	case binding.DEVICE_ARCH_HOPPER:
		return "Hopper"
	case binding.DEVICE_ARCH_BLACKWELL:
		return "Blackwell"
	case binding.DEVICE_ARCH_RUBIN:
		return "Rubin"
	}
	return ""
}
