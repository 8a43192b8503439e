//go:build cgo

package worker

import (
	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// fabric asks for the newest form that the driver knows. A GPU that belongs to
// no fabric has none: it cannot be asked, or says that it is not supported.
func (b *batch) fabric() nvml.Maybe[nvml.Fabric] {
	const function = "nvmlDeviceGetGpuFabricInfoV"
	three, ok := asks(b, function, func() (binding.GpuFabricInfo_v3, binding.Return) { return b.device.GetGpuFabricInfoV().V3() })
	if ok {
		return fabricOf(three.State, nvml.Fabric{
			Status: int(three.Status), Clique: three.CliqueId,
			Health: fabricHealth(three.HealthSummary), Conditions: nvml.Some(fabricConditions(three.HealthMask)),
		})
	}
	two, ok := asks(b, function, func() (binding.GpuFabricInfo_v2, binding.Return) { return b.device.GetGpuFabricInfoV().V2() })
	if ok {
		return fabricOf(two.State, nvml.Fabric{
			Status: int(two.Status), Clique: two.CliqueId, Conditions: nvml.Some(fabricConditions(two.HealthMask)),
		})
	}
	one, ok := asks(b, "nvmlDeviceGetGpuFabricInfo", b.device.GetGpuFabricInfo)
	if ok {
		return fabricOf(one.State, nvml.Fabric{Status: int(one.Status), Clique: one.CliqueId})
	}
	return nvml.Maybe[nvml.Fabric]{}
}

func fabricOf(state uint8, f nvml.Fabric) nvml.Maybe[nvml.Fabric] {
	switch state {
	case binding.GPU_FABRIC_STATE_NOT_SUPPORTED:
		return nvml.Maybe[nvml.Fabric]{}
	case binding.GPU_FABRIC_STATE_NOT_STARTED:
		f.State = nvml.FabricNotStarted
	case binding.GPU_FABRIC_STATE_IN_PROGRESS:
		f.State = nvml.FabricInProgress
	case binding.GPU_FABRIC_STATE_COMPLETED:
		f.State = nvml.FabricCompleted
	}
	return nvml.Some(f)
}

func fabricHealth(summary uint8) string {
	switch summary {
	case binding.GPU_FABRIC_HEALTH_SUMMARY_HEALTHY:
		return "healthy"
	case binding.GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY:
		return "unhealthy"
	case binding.GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY:
		return "limited-capacity"
	}
	return ""
}

// fabricConditions reads a health mask. Each part of it has a value for "not
// supported", which is no condition.
func fabricConditions(mask uint32) []nvml.FabricCondition {
	conditions := []nvml.FabricCondition{}
	for _, part := range [...]struct {
		shift, width, value uint32
		means               nvml.FabricCondition
	}{
		{0, 0x3, 1, nvml.FabricDegradedBandwidth},
		{2, 0x3, 1, nvml.FabricRouteRecovery},
		{4, 0x3, 1, nvml.FabricRouteUnhealthy},
		{6, 0x3, 1, nvml.FabricAccessTimeout},
		{8, 0xf, 2, nvml.FabricWrongSystem},
		{8, 0xf, 3, nvml.FabricWrongChassis},
		{8, 0xf, 4, nvml.FabricNoPartition},
		{8, 0xf, 5, nvml.FabricTooFewLinks},
		{8, 0xf, 6, nvml.FabricWrongFirmware},
		{8, 0xf, 7, nvml.FabricWrongLocation},
		{8, 0xf, 8, nvml.FabricWrongGPUState},
		{12, 0x3, 2, nvml.FabricUnassigned},
		{14, 0x3, 2, nvml.FabricManagerDisconnected},
	} {
		if mask>>part.shift&part.width == part.value {
			conditions = append(conditions, part.means)
		}
	}
	return conditions
}
