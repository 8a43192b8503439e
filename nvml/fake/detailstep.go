package fake

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"gpuvet.dev/nvml"
)

// detailForms are the actions of a [Detail].
func detailForms() []actionForm {
	return []actionForm{
		{"processes", true, nil, decodeProcesses},
		{"fields", true, nil, decodeFields},
		{"metrics", true, nil, decodeMetrics},
		{"throttle", true, nil, decodeThrottle},
		{"pcie", true, nil, decodePCIe},
		{"nvlink", true, nil, decodeNVLink},
		{"fabric", true, nil, decodeFabric},
		{"retiredPages", true, nil, decodeRetiredPages},
	}
}

func decodeProcesses(n, _ node, g GPU) Action {
	processes := Processes{}
	for _, item := range n.list() {
		item.keys("pid", "name", "kind", "memory", "utilization", "memoryUtilization", "gpuInstance", "computeInstance")
		p := Process{
			PID:         item.at("pid").required("a process number").integer(1, math.MaxInt32),
			Name:        item.at("name").text(),
			Kind:        item.at("kind").word("compute", "graphics", "mps"),
			Utilization: item.at("utilization").number(0, 1), MemoryUtilization: item.at("memoryUtilization").number(0, 1),
		}
		if memory := item.at("memory"); !memory.isNull() {
			p.Memory = nvml.Some(uint64(memory.bytes(0, float64(g.MemoryBytes))))
		}
		if instance := item.at("gpuInstance"); instance.filled {
			p.GPUInstance = new(instance.integer(0, 255))
			p.ComputeInstance = new(item.at("computeInstance").integer(0, 255))
		}
		processes = append(processes, p)
	}
	return processes
}

func decodeFields(n, _ node, _ GPU) Action {
	const mostID = 999
	fields := Fields{}
	for _, item := range n.list() {
		item.keys("id", "scope", "value", "type", "error")
		f := Field{
			ID:      item.at("id").required("the number of a field").integer(1, mostID),
			Scope:   item.at("scope").integer(0, math.MaxUint32),
			Type:    item.at("type").word("uint", "ulong", "ulonglong", "longlong", "int", "ushort", "double"),
			Failure: decodeFailure(item.at("error")),
		}
		switch value := item.at("value"); {
		case value.isNull():
			f.Type = "none"
		case value.filled:
			f.Bits = value.bits(f.Type)
		case !item.at("error").filled:
			item.expected("value or error")
		}
		fields = append(fields, f)
	}
	return fields
}

// bits is a number as it stands in memory.
func (n node) bits(kind string) uint64 {
	number, ok := n.value.(json.Number)
	var bits uint64
	var err error
	switch kind {
	case "double":
		var f float64
		f, err = number.Float64()
		bits = math.Float64bits(f)
	case "int":
		var i int64
		i, err = strconv.ParseInt(number.String(), 10, 32)
		bits = uint64(uint32(i))
	case "longlong":
		var i int64
		i, err = number.Int64()
		bits = uint64(i)
	default:
		size := map[string]int{"ushort": 16, "uint": 32}[kind]
		if size == 0 {
			size = 64
		}
		bits, err = strconv.ParseUint(number.String(), 10, size)
	}
	if !ok || err != nil {
		n.expected("a number that fits its type")
		return 0
	}
	return bits
}

func decodeMetrics(n, _ node, _ GPU) Action {
	const mostID = 127
	metrics := Metrics{}
	for key, value := range n.entries() {
		id, err := strconv.Atoi(key)
		if err != nil || id < 1 || id > mostID {
			n.faults.add(value.path + ": unknown metric: expected 1 to " + strconv.Itoa(mostID))
			continue
		}
		metrics[id] = nvml.Maybe[float64]{}
		if !value.isNull() {
			metrics[id] = nvml.Some(value.number(0, math.MaxInt32))
		}
	}
	return metrics
}

// throttleReasons are in the order of their bits, from the second on.
func throttleReasons() []string {
	return []string{
		"applications-clocks", "sw-power-cap", "hw-slowdown", "sync-boost", "sw-thermal",
		"hw-thermal", "hw-power-brake", "display-clocks", "board-limit", "reliability",
	}
}

func decodeThrottle(n, _ node, _ GPU) Action {
	var reasons ThrottleReasons
	for _, item := range n.list() {
		if i := slices.Index(throttleReasons(), item.word(throttleReasons()...)); i >= 0 {
			reasons |= 2 << i
		}
	}
	return reasons
}

func decodePCIe(n, _ node, g GPU) Action {
	n.keys("generation", "width")
	link := g.Model.PCIe
	if v := n.at("generation"); v.filled {
		link.Generation = v.integer(1, 7)
	}
	if v := n.at("width"); v.filled {
		link.Width = v.integer(1, 16)
	}
	return link
}

func decodeNVLink(n, _ node, g GPU) Action {
	if g.Model.NVLink.Count == 0 {
		n.fail("expected no nvlink: " + g.Name + " has none")
		return NVLink{}
	}
	n.keys("link", "state", "replays", "recoveries", "crcErrors")
	return NVLink{
		Number:  n.at("link").required("the number of a link").integer(0, g.Model.NVLink.Count-1),
		State:   n.at("state").word("active", "inactive", "sleep"),
		Replays: uint64(n.at("replays").integer(0, math.MaxInt32)), Recoveries: uint64(n.at("recoveries").integer(0, math.MaxInt32)),
		CRCErrors: uint64(n.at("crcErrors").integer(0, math.MaxInt32)),
	}
}

func decodeFabric(n, _ node, g GPU) Action {
	if !g.Model.Fabric {
		n.fail("expected no fabric: " + g.Name + " has none")
		return Fabric{}
	}
	n.keys("state", "status", "clique", "unhealthy")
	f := Fabric{
		State:  n.at("state").required("not-started, in-progress or completed").word("not-started", "in-progress", "completed"),
		Status: decodeFailure(n.at("status")),
		Clique: n.at("clique").integer(0, math.MaxInt32),
	}
	for _, item := range n.at("unhealthy").list() {
		f.Unhealthy = append(f.Unhealthy, item.word("degraded-bandwidth", "route-recovery", "route-unhealthy", "access-timeout"))
	}
	return f
}

func decodeRetiredPages(n, _ node, _ GPU) Action {
	n.keys("corrected", "uncorrected", "pending")
	return RetiredPages{
		Corrected:   uint64(n.at("corrected").integer(0, math.MaxInt32)),
		Uncorrected: uint64(n.at("uncorrected").integer(0, math.MaxInt32)),
		Pending:     n.at("pending").boolean(),
	}
}

func decodeLatency(n node) Latency {
	var groups []string
	for _, group := range CallGroups() {
		groups = append(groups, string(group))
	}
	n.keys(groups...)
	latency := Latency{}
	for _, group := range groups {
		if v := n.at(group); v.filled {
			latency[CallGroup(group)] = v.duration()
		}
	}
	return latency
}
