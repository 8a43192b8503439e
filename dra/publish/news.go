package publish

import (
	"iter"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

// fence is a taint that keeps a device from new work, or ends what runs on it.
type fence struct {
	device, key string
}

// news is a fence with its effect: to be driven away is news on a device that takes no
// new work already.
type news struct {
	fence
	effect resourceapi.DeviceTaintEffect
}

// worse yields the fences of devices that were not fenced so, or less hard, and their
// effects. Good news, and all that nobody acts on, is not among them.
func worse(before, now []resourceslice.Slice) iter.Seq2[fence, resourceapi.DeviceTaintEffect] {
	return func(yield func(fence, resourceapi.DeviceTaintEffect) bool) {
		was := fences(before)
		for f, effect := range fences(now) {
			old, fenced := was[f]
			harder := effect == resourceapi.DeviceTaintEffectNoExecute && old != effect
			if (!fenced || harder) && !yield(f, effect) {
				return
			}
		}
	}
}

func fences(all []resourceslice.Slice) map[fence]resourceapi.DeviceTaintEffect {
	found := map[fence]resourceapi.DeviceTaintEffect{}
	for _, s := range all {
		for _, d := range s.Devices {
			for _, t := range d.Taints {
				if t.Effect == resourceapi.DeviceTaintEffectNoSchedule || t.Effect == resourceapi.DeviceTaintEffectNoExecute {
					found[fence{d.Name, t.Key}] = t.Effect
				}
			}
		}
	}
	return found
}

func tainted(all []resourceslice.Slice) bool {
	return slices.ContainsFunc(all, func(s resourceslice.Slice) bool {
		return slices.ContainsFunc(s.Devices, func(d resourceapi.Device) bool { return len(d.Taints) > 0 })
	})
}

func equal(a, b []resourceslice.Slice) bool {
	return apiequality.Semantic.DeepEqual(a, b)
}

func sliceOf(stored []*resourceapi.ResourceSlice) []resourceslice.Slice {
	var all []resourceslice.Slice
	for _, s := range stored {
		all = append(all, resourceslice.Slice{Devices: s.Spec.Devices})
	}
	return all
}
