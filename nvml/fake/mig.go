package fake

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gpuvet.dev/nvml"
)

// MIGProfile is one kind of GPU instance that a GPU can be cut into.
type MIGProfile struct {
	Name            string // 1g.10gb
	Index           int    // NVML_GPU_INSTANCE_PROFILE_*
	ID              int    // by which nvidia-smi mig knows it
	Slices          int    // of the seven for compute
	Size            int    // of the eight of memory
	Starts          []int  // memory slices at which it may begin
	Count           int    // of them that fit
	Multiprocessors int
	Engines         MIGEngines
	Memory          uint64 // bytes
}

// MIGEngines are the engines of a GPU instance.
type MIGEngines struct{ Copy, Decode, Encode, JPEG, OFA int }

// sevenSlices are the profiles of GPUs that are cut as the A100 was first:
// seven slices of compute, eight of memory. The sizes are those of an eighth, a
// quarter, a half and the whole of the memory, in MiB; multiprocessors are those
// of 1g, of 1g with twice the memory, of 3g and of 7g.
func sevenSlices(eighth, quarter, half, whole uint64, multiprocessors [4]int, names ...string) []MIGProfile {
	one := multiprocessors[0]
	profile := func(slices int, name, more string, index, id, size, count, multiprocessors int, memory uint64, starts ...int) MIGProfile {
		p := MIGProfile{
			Name: fmt.Sprintf("%dg.%s%s", slices, name, more), Index: index, ID: id, Slices: slices, Size: size,
			Starts: starts, Count: count, Multiprocessors: multiprocessors, Memory: memory * mebibyte,
			Engines: MIGEngines{Copy: slices, Decode: max(1, slices-1)},
		}
		if more != "" || slices == 7 {
			p.Engines.JPEG, p.Engines.OFA = 1, 1
		}
		return p
	}
	return []MIGProfile{
		profile(1, names[0], "", 0, 19, 1, 7, one, eighth, 0, 1, 2, 3, 4, 5, 6),
		profile(1, names[0], mediaExtensions, 7, 20, 1, 1, one, eighth, 0, 1, 2, 3, 4, 5, 6),
		profile(1, names[1], "", 9, 15, 2, 4, multiprocessors[1], quarter, 0, 2, 4, 6),
		profile(2, names[1], "", 1, 14, 2, 3, 2*one, quarter, 0, 2, 4),
		profile(3, names[2], "", 2, 9, 4, 2, multiprocessors[2], half, 0, 4),
		profile(4, names[2], "", 3, 5, 4, 1, 4*one, half, 0),
		profile(7, names[3], "", 4, 0, 8, 1, multiprocessors[3], whole, 0),
	}
}

const mediaExtensions = "+me" // only one instance can have them

// gpuInstance is one that is being placed.
type gpuInstance struct {
	profile MIGProfile
	start   int
	compute []int // slices of its compute instances
}

// id is the number that the driver gives it: the GPU is halved again and again,
// and the parts are counted from the whole.
func (i gpuInstance) id() int { return 8/i.profile.Size - 1 + i.start/i.profile.Size }

func (i gpuInstance) end() int { return i.start + i.profile.Size }

func (i gpuInstance) free() int {
	free := i.profile.Slices
	for _, slices := range i.compute {
		free -= slices
	}
	return free
}

// Cut gives the MIG devices of a GPU by the profiles of their instances, such
// as 3g.40gb. One with a part of the compute slices is written 1c.3g.40gb, and
// shares a GPU instance with those beside it in the list that fit. Each GPU
// instance is placed at the lowest place that leaves one for those behind it.
// UUIDs are a function of the GPU's and of the place.
func (g GPU) Cut(profiles ...string) ([]nvml.Instance, error) {
	var wanted []gpuInstance
	for _, name := range profiles {
		compute, profile, err := g.profile(name)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		last := len(wanted) - 1
		if compute < profile.Slices && last >= 0 && wanted[last].profile.Name == profile.Name && wanted[last].free() >= compute {
			wanted[last].compute = append(wanted[last].compute, compute)
			continue
		}
		wanted = append(wanted, gpuInstance{profile: profile, compute: []int{compute}})
	}
	for i := range wanted {
		if !place(wanted[:i+1], 0) {
			return nil, fmt.Errorf("%s does not fit beside %s", wanted[i].profile.Name, namesOf(wanted[:i]))
		}
	}
	slices.SortStableFunc(wanted, func(a, b gpuInstance) int { return a.id() - b.id() })
	var instances []nvml.Instance
	for _, w := range wanted {
		instances = append(instances, w.devices(g.UUID)...)
	}
	return instances, nil
}

// profile finds "1c.3g.40gb" or "3g.40gb" among those of the model, with the
// compute slices that are meant.
func (g GPU) profile(name string) (int, MIGProfile, error) {
	whole, compute := name, 0
	if found := partForm.FindStringSubmatch(name); found != nil {
		whole = found[2]
		compute, _ = strconv.Atoi(found[1]) // one digit
	}
	i := slices.IndexFunc(g.Model.MIG, func(p MIGProfile) bool { return p.Name == whole })
	if i < 0 {
		return 0, MIGProfile{}, fmt.Errorf("expected %s", list(g.migProfiles()))
	}
	profile := g.Model.MIG[i]
	if compute == 0 {
		return profile.Slices, profile, nil
	}
	if compute > profile.Slices || !slices.Contains([]int{1, 2, 3, 4, 7}, compute) {
		return 0, MIGProfile{}, fmt.Errorf("expected 1c, 2c, 3c, 4c or 7c, and at most %dc", profile.Slices)
	}
	return compute, profile, nil
}

var partForm = regexp.MustCompile(`^([0-9])c\.(.*)$`)

func (g GPU) migProfiles() []string {
	var names []string
	for _, p := range g.Model.MIG {
		names = append(names, p.Name)
	}
	return names
}

// place looks for places for the instances from the i-th on, beside those
// before it.
func place(wanted []gpuInstance, i int) bool {
	const computeSlices = 7
	if i == len(wanted) {
		var compute, media int
		for _, w := range wanted {
			compute += w.profile.Slices
			if strings.HasSuffix(w.profile.Name, mediaExtensions) {
				media++
			}
		}
		return compute <= computeSlices && media <= 1
	}
	for _, start := range wanted[i].profile.Starts {
		wanted[i].start = start
		free := !slices.ContainsFunc(wanted[:i], func(w gpuInstance) bool { return w.start < wanted[i].end() && start < w.end() })
		if free && place(wanted, i+1) {
			return true
		}
	}
	return false
}

func (i gpuInstance) devices(gpu string) []nvml.Instance {
	var devices []nvml.Instance
	for compute, slices := range i.compute {
		name := i.profile.Name
		if slices < i.profile.Slices {
			name = fmt.Sprintf("%dc.%s", slices, name)
		}
		id := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d", gpu, name, i.id(), compute))
		devices = append(devices, nvml.Instance{
			UUID:        fmt.Sprintf("MIG-%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]),
			GPUInstance: i.id(), ComputeInstance: compute, Profile: name, MemoryBytes: i.profile.Memory,
			Start: nvml.Some(i.start), Size: nvml.Some(i.profile.Size),
		})
	}
	return devices
}

func namesOf(placed []gpuInstance) string {
	if len(placed) == 0 {
		return "nothing"
	}
	var names []string
	for _, p := range placed {
		names = append(names, p.profile.Name)
	}
	return strings.Join(names, ", ")
}
