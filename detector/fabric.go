package detector

import (
	"fmt"
	"slices"
	"strings"

	"gpuvet.dev/nvml"
)

// fabricFaults are the conditions of a fabric's health mask that limit a GPU and
// leave it usable. That it is assigned to no partition may be meant so, and is none
// of them.
var fabricFaults = []nvml.FabricCondition{
	nvml.FabricDegradedBandwidth, nvml.FabricRouteRecovery, nvml.FabricRouteUnhealthy, nvml.FabricAccessTimeout,
	nvml.FabricWrongSystem, nvml.FabricWrongChassis, nvml.FabricNoPartition, nvml.FabricTooFewLinks,
	nvml.FabricWrongFirmware, nvml.FabricWrongLocation, nvml.FabricWrongGPUState, nvml.FabricManagerDisconnected,
}

// fabricLevel is one fact about a GPU in its fabric.
type fabricLevel struct {
	kind   Kind
	so     bool
	detail string
}

// fabricLevels are all of them; none if the GPU belongs to no fabric, or its state is
// one that is not known.
func fabricLevels(h *nvml.Health) []fabricLevel {
	fabric := h.Fabric.Value
	if !h.Fabric.OK || fabric.State == "" {
		return nil
	}
	done := fabric.State == nvml.FabricCompleted
	var limited []string
	for _, is := range fabric.Conditions.Value {
		if slices.Contains(fabricFaults, is) {
			limited = append(limited, string(is))
		}
	}
	if len(limited) == 0 && (fabric.Health == "unhealthy" || fabric.Health == "limited-capacity") {
		limited = []string{fabric.Health}
	}
	return []fabricLevel{
		{KindFabricNotReady, !done, string(fabric.State)},
		// nvml.h: the status is that of a registration that is complete.
		{KindFabricRefused, done && fabric.Status != 0, fmt.Sprintf("status %d", fabric.Status)},
		{KindFabricDegraded, len(limited) > 0, strings.Join(limited, ", ")},
	}
}
