package pool

import (
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"

	"gpuvet.dev/nvml"
)

// nvidiaDomain is that of NVIDIA's driver. Its names are published beside ours, so that
// a selector on device.attributes['gpu.nvidia.com'] finds our devices too.
const nvidiaDomain = "gpu.nvidia.com/"

// whose says under which names an attribute is published.
type whose int

const (
	ours   whose = iota // the bare name, or the standard one as it stands
	both                // the bare name, and NVIDIA's
	theirs              // NVIDIA's alone
)

// attribute is one row of what is published. A value that is nil is unknown, and the
// attribute left out.
type attribute struct {
	name  resourceapi.QualifiedName
	whose whose
	value func(subject) *resourceapi.DeviceAttribute
}

// Those of every device. The last three are always there, so that a selector may ask
// for them without more ado: CEL fails a claim on a device that lacks an attribute.
var attributes = []attribute{
	{"productName", both, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.Name) }},
	{"architecture", ours, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.Architecture) }},
	{"architecture", theirs, func(s subject) *resourceapi.DeviceAttribute { return text(nvidiaWord(s.gpu.Architecture)) }},
	{"cudaComputeCapability", both, func(s subject) *resourceapi.DeviceAttribute { return semantic(s.gpu.ComputeCapability) }},
	{"driverVersion", both, func(s subject) *resourceapi.DeviceAttribute { return semantic(s.s.Driver.Version) }},
	{deviceattribute.StandardDeviceAttributePCIBusID, ours, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.PCI) }},
	{deviceattribute.StandardDeviceAttributePCIeRoot, ours, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.PCIeRoot) }},
	{deviceattribute.StandardDeviceAttributeNUMANode, ours, func(s subject) *resourceapi.DeviceAttribute { return integer(s.gpu.NUMANode) }},
	{"healthy", ours, func(s subject) *resourceapi.DeviceAttribute {
		return &resourceapi.DeviceAttribute{BoolValue: new(s.device.Healthy)}
	}},
	{"healthState", ours, func(s subject) *resourceapi.DeviceAttribute { return text(string(s.device.Status)) }},
	{"recoveryAction", ours, func(s subject) *resourceapi.DeviceAttribute {
		if s.gpu.Recovery == nil {
			return nil
		}
		return text(nvml.RecoveryAction(*s.gpu.Recovery).String())
	}},
}

var gpuAttributes = slices.Concat(attributes, []attribute{
	{"type", both, func(subject) *resourceapi.DeviceAttribute { return text("gpu") }},
	{"uuid", both, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.UUID) }},
	{"brand", both, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.Brand) }},
	{"cudaDriverVersion", both, func(s subject) *resourceapi.DeviceAttribute { return semantic(s.s.Driver.CUDA) }},
	{"addressingMode", theirs, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.AddressingMode) }},
	{"minor", ours, func(s subject) *resourceapi.DeviceAttribute { return integer(s.gpu.Minor) }},
	{"memoryClass", ours, func(s subject) *resourceapi.DeviceAttribute { return text(memoryClass(s.gpu.MemoryBytes)) }},
})

var migAttributes = slices.Concat(attributes, []attribute{
	{"type", both, func(subject) *resourceapi.DeviceAttribute { return text("mig") }},
	{"uuid", both, func(s subject) *resourceapi.DeviceAttribute { return text(s.instance.UUID) }},
	{"parentUUID", both, func(s subject) *resourceapi.DeviceAttribute { return text(s.gpu.UUID) }},
	{"profile", both, func(s subject) *resourceapi.DeviceAttribute { return text(s.instance.Profile) }},
	{"placementStart", ours, func(s subject) *resourceapi.DeviceAttribute { return maybe(s.instance.Start) }},
	{"placementSize", ours, func(s subject) *resourceapi.DeviceAttribute { return maybe(s.instance.Size) }},
	{"cudaDriverVersion", ours, func(s subject) *resourceapi.DeviceAttribute { return semantic(s.s.Driver.CUDA) }},
})

// capacity is one row of how much a device has. Zero bytes are an unknown number.
type capacity struct {
	name  resourceapi.QualifiedName
	bytes func(subject) uint64
}

var gpuCapacities = []capacity{
	{"memory", func(s subject) uint64 { return s.gpu.MemoryBytes }},
	{nvidiaDomain + "memory", func(s subject) uint64 { return s.gpu.MemoryBytes }},
}

var migCapacities = []capacity{
	{"memory", func(s subject) uint64 { return s.instance.MemoryBytes }},
}

func attributesOf(rows []attribute, sub subject) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	all := make(map[resourceapi.QualifiedName]resourceapi.DeviceAttribute, len(rows)*3/2)
	for _, row := range rows {
		value := row.value(sub)
		if value == nil {
			continue
		}
		if row.whose != theirs {
			all[row.name] = *value
		}
		if row.whose != ours {
			all[nvidiaDomain+row.name] = *value
		}
	}
	return all
}

func capacitiesOf(rows []capacity, sub subject) map[resourceapi.QualifiedName]resourceapi.DeviceCapacity {
	all := map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{}
	for _, row := range rows {
		if n := row.bytes(sub); n > 0 {
			all[row.name] = resourceapi.DeviceCapacity{Value: *resource.NewQuantity(int64(n), resource.BinarySI)}
		}
	}
	return all
}

// The size tiers of whole GPUs, by device memory.
const (
	gibibyte  = 1 << 30
	maxSmall  = 25 * gibibyte
	maxMedium = 82 * gibibyte
)

// nvidiaWord is how NVIDIA's driver writes an architecture, where NVML's word is another.
func nvidiaWord(architecture string) string {
	if architecture == "Ada" {
		return "Ada Lovelace"
	}
	return architecture
}

func memoryClass(bytes uint64) string {
	switch {
	case bytes == 0:
		return ""
	case bytes <= maxSmall:
		return "small"
	case bytes <= maxMedium:
		return "medium"
	default:
		return "large"
	}
}

func text(value string) *resourceapi.DeviceAttribute {
	if value = short(value); value == "" {
		return nil
	}
	return &resourceapi.DeviceAttribute{StringValue: &value}
}

func semantic(value string) *resourceapi.DeviceAttribute {
	v, ok := version(value)
	if !ok {
		return nil
	}
	return &resourceapi.DeviceAttribute{VersionValue: &v}
}

func integer(value *int) *resourceapi.DeviceAttribute {
	if value == nil {
		return nil
	}
	return &resourceapi.DeviceAttribute{IntValue: new(int64(*value))}
}

func maybe(value nvml.Maybe[int]) *resourceapi.DeviceAttribute {
	if !value.OK {
		return nil
	}
	return integer(&value.Value)
}
