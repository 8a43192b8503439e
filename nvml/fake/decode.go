package fake

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"gpuvet.dev/nvml"
)

const (
	defaultDriver = "570.195.03"
	defaultCUDA   = "12.8"
	maxGPUs       = 16 // two baseboards
)

// Load reads a scenario file. An error names the file.
func Load(path string) (*Scenario, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	return Decode(filepath.Base(path), data)
}

// Decode reads a scenario from YAML. An unknown key or a value that makes no
// sense is an error that says where it stands (in the file called name), what
// it is and what was expected; all of them are told at once, one a line.
func Decode(name string, data []byte) (*Scenario, error) {
	tree, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var found faults
	s := decodeScenario(node{value: tree, filled: true, faults: &found})
	if err := found.err(name); err != nil {
		return nil, err
	}
	return s, nil
}

func decodeScenario(n node) *Scenario {
	if n.keys("gpus", "driver", "start", "timeline", "repeat") == nil {
		return nil
	}
	s := &Scenario{
		Driver: decodeDriver(n.at("driver")),
		GPUs:   decodeGPUs(n.at("gpus"), n.at("start")),
		Repeat: n.at("repeat").positiveDuration(),
	}
	for _, item := range n.at("timeline").list() {
		step := decodeStep(item, s.GPUs)
		if s.Repeat > 0 && step.At >= s.Repeat {
			item.at("at").expected("less than repeat, %s", s.Repeat)
		}
		s.Timeline = append(s.Timeline, step)
	}
	return s
}

var (
	driverForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`)
	cudaForm   = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)
)

func decodeDriver(n node) DriverInfo {
	n.keys("version", "cuda", "absent", "library", "absence", "latency", "excluded")
	info := DriverInfo{
		Version: defaultDriver, CUDA: defaultCUDA, Absent: n.at("absent").boolean(),
		Library:   driverVersion(n.at("library")),
		Sentinels: n.at("absence").word("not-supported", "sentinel") == "sentinel",
	}
	if v := n.at("version"); v.filled {
		info.Version = driverVersion(v)
	}
	if v := n.at("cuda"); v.filled {
		info.CUDA = cudaVersion(v)
	}
	if v := n.at("latency"); v.filled {
		info.Latency = decodeLatency(v)
	}
	for _, item := range n.at("excluded").list() {
		item.keys("pci", "uuid")
		info.Excluded = append(info.Excluded, Excluded{PCI: address(item.at("pci").required(addressWanted)), UUID: gpuUUID(item.at("uuid"))})
	}
	return info
}

func driverVersion(n node) string { return n.matching(driverForm, `a version such as "570.195.03"`) }

func cudaVersion(n node) string { return n.matching(cudaForm, `a version such as "12.8"`) }

// decodeGPUs gives the GPUs with the values that they start with: those of the
// profile, then those for all, then their own.
func decodeGPUs(n, start node) []GPU {
	var gpus []GPU
	if n.isList() {
		gpus = decodeListedGPUs(n, start)
	} else if n.required("count and profile, or a list").filled {
		n.keys("count", "profile", "mig")
		count := n.at("count").required("how many").integer(0, maxGPUs)
		name, profile := decodeProfile(n.at("profile").required(list(Profiles())))
		for i := range count {
			g := profile.gpu(name, i)
			maps.Copy(g.Start, decodeStart(start, g))
			gpus = append(gpus, cut(n.at("mig"), g))
		}
	}
	for key, own := range start.at("gpu").entries() {
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 || i >= len(gpus) {
			n.faults.add(own.path + ": unknown GPU: expected " + indexes(gpus))
			continue
		}
		maps.Copy(gpus[i].Start, decodeValues(own, gpus[i]))
	}
	return gpus
}

var (
	addressForm = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
	rootForm    = regexp.MustCompile(`^pci[0-9a-f]{4}:[0-9a-f]{2}$`)
	uuidForm    = regexp.MustCompile(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func decodeListedGPUs(n, start node) []GPU {
	items := n.list()
	if len(items) > maxGPUs {
		n.expected("at most %d GPUs", maxGPUs)
		return nil
	}
	var gpus []GPU
	for i, item := range items {
		item.keys("profile", "uuid", "pci", "name", "memory", "numa", "pcieRoot", "start", "mig")
		name, profile := decodeProfile(item.at("profile").required(list(Profiles())))
		g := profile.gpu(name, i)
		if uuid := item.at("uuid"); uuid.filled {
			g.UUID = gpuUUID(uuid)
		}
		if pci := item.at("pci"); pci.filled {
			g.PCI = address(pci)
		}
		if name := item.at("name"); name.filled {
			g.Name = name.text()
		}
		if memory := item.at("memory"); memory.filled {
			g.MemoryBytes = uint64(memory.bytes(1<<30, 1<<50))
		}
		decodePlace(item, &g)
		maps.Copy(g.Start, decodeStart(start, g))
		maps.Copy(g.Start, decodeValues(item.at("start"), g))
		// An index means the same GPU in the file and in the inventory only if
		// the file is in PCI order too.
		if i > 0 && g.PCI <= gpus[i-1].PCI {
			n.faults.add(fmt.Sprintf("%s.pci: %s: expected an address after %s", item.path, g.PCI, gpus[i-1].PCI))
		}
		gpus = append(gpus, cut(item.at("mig"), g))
	}
	return gpus
}

// decodePlace reads where the kernel has a GPU.
func decodePlace(n node, g *GPU) {
	switch numa := n.at("numa"); {
	case numa.isNull():
		g.NUMANode = nvml.Maybe[int]{}
	case numa.filled:
		g.NUMANode = nvml.Some(numa.integer(0, 1023))
	}
	switch root := n.at("pcieRoot"); {
	case root.isNull():
		g.PCIeRoot = ""
	case root.filled:
		g.PCIeRoot = root.matching(rootForm, "a root complex such as pci0000:64")
	}
}

const addressWanted = "a lower-case address such as 0000:3b:00.0"

func address(n node) string { return n.matching(addressForm, addressWanted) }

func gpuUUID(n node) string {
	return n.matching(uuidForm, "a UUID such as GPU-01234567-89ab-cdef-0123-456789abcdef")
}

// cut gives the GPU with the MIG devices that it starts with.
func cut(n node, g GPU) GPU {
	if !n.filled {
		return g
	}
	mig := decodeMIG(n, g)
	if instances, err := g.Cut(mig.Profiles...); err == nil {
		g.MIG, g.Instances = nvml.Some(mig.Enabled), instances
	}
	return g
}

func decodeMIG(n node, g GPU) MIG {
	switch {
	case !g.MIG.OK:
		n.fail("expected no mig: " + g.Name + " has none")
		return MIG{}
	case !n.isList():
		n.word("disabled")
		return MIG{}
	}
	mig := MIG{Enabled: true}
	sound := true
	for _, item := range n.list() {
		name := item.text()
		if _, _, err := g.profile(name); err != nil {
			item.fail(err.Error())
			sound = false
		}
		mig.Profiles = append(mig.Profiles, name)
	}
	if _, err := g.Cut(mig.Profiles...); sound && err != nil {
		n.fail(err.Error())
	}
	return mig
}

// decodeProfile gives some profile even where it notes a fault, so that faults
// behind it are found too.
func decodeProfile(n node) (string, profile) {
	all := profiles()
	name, _ := n.value.(string)
	if p, ok := all[name]; ok {
		return name, p
	}
	if n.filled {
		n.expected("%s", list(Profiles()))
	}
	return "h100", all["h100"]
}

func decodeStart(n node, g GPU) Values { return decodeValues(n, g, "gpu") }

func decodeValues(n node, g GPU, also ...string) Values {
	quantities := []Quantity{
		Temperature, MemoryTemperature, Power, PowerLimit, Utilization, MemoryUtilization,
		MemoryUsed, MemoryReserved, PCIeReplays, Wave,
	}
	var known []string
	for _, q := range quantities {
		known = append(known, string(q))
	}
	n.keys(append(known, also...)...)
	values := Values{}
	for _, q := range quantities {
		v := n.at(string(q))
		switch {
		case v.isNull():
			values[q] = nvml.Maybe[float64]{}
		case v.filled:
			values[q] = nvml.Some(decodeQuantity(v, q, g))
		}
	}
	return values
}

func decodeQuantity(n node, q Quantity, g GPU) float64 {
	switch q {
	case Temperature, MemoryTemperature:
		return n.number(-50, 150)
	case Power, PowerLimit:
		return n.number(0, 5000)
	case MemoryUsed, MemoryReserved:
		return n.bytes(0, float64(g.MemoryBytes))
	case PCIeReplays:
		return float64(n.integer(0, math.MaxInt32))
	case Utilization, MemoryUtilization, Wave:
	}
	return n.number(0, 1) // a share
}

func indexes(gpus []GPU) string {
	if len(gpus) == 0 {
		return "none, as there is no GPU"
	}
	return fmt.Sprintf("0 to %d", len(gpus)-1)
}
