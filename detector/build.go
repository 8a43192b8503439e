package detector

import (
	"cmp"
	"strconv"

	"gpuvet.dev/nvml"
)

// tellBuild adds to the fields of a GPUFound event how the GPU is made. What NVML and
// the kernel do not say has no field, or an empty one.
func tellBuild(fields map[string]string, gpu nvml.GPU) {
	fields["brand"], fields["computeCapability"] = gpu.Brand, gpu.ComputeCapability
	fields["addressingMode"], fields["pcieRoot"] = gpu.AddressingMode, gpu.PCIeRoot
	if gpu.NUMANode.OK {
		fields["numaNode"] = strconv.Itoa(gpu.NUMANode.Value)
	}
	if gpu.MIG.OK {
		fields["mig"] = strconv.FormatBool(gpu.MIG.Value)
	}
}

// learn takes from a GPUFound event what it says, and keeps what it does not.
func (b *Build) learn(e *Event) {
	b.Brand = cmp.Or(e.Fields["brand"], b.Brand)
	b.ComputeCapability = cmp.Or(e.Fields["computeCapability"], b.ComputeCapability)
	b.AddressingMode = cmp.Or(e.Fields["addressingMode"], b.AddressingMode)
	b.NUMANode = cmp.Or(integer(e.Fields["numaNode"]), b.NUMANode)
	b.PCIeRoot = cmp.Or(e.Fields["pcieRoot"], b.PCIeRoot)
	if mode, told := e.Fields["mig"]; told {
		b.MIG, b.Instances = mode == "true", e.Instances
	}
}
