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
		{"performanceState", true, nil, decodePerformanceState},
		{"pcie", true, nil, func(n, _ node, g GPU) Action { return decodePCIe(n, g) }},
		{"pcieMax", true, nil, func(n, _ node, g GPU) Action { return PCIeMax(decodePCIe(n, g)) }},
		{"pcieErrors", true, nil, decodePCIeErrors},
		{"nvlink", true, nil, decodeNVLink},
		{"fabric", true, nil, decodeFabric},
		{"eccMode", true, nil, decodeECCMode},
		{"sram", true, nil, decodeSRAM},
		{"rowBanks", true, nil, decodeRowBanks},
		{"retiredPages", true, nil, decodeRetiredPages},
		{"migPending", true, nil, decodeMIGPending},
		{"persistence", true, nil, func(n, _ node, _ GPU) Action { return Persistence(n.boolean()) }},
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

func decodeThrottle(n, _ node, _ GPU) Action {
	var names []string
	for _, reason := range clockReasons()[1:] { // idle follows from the work
		names = append(names, string(reason))
	}
	var reasons ThrottleReasons
	for _, item := range n.list() {
		if i := slices.Index(names, item.word(names...)); i >= 0 {
			reasons |= 2 << i
		}
	}
	return reasons
}

func decodePerformanceState(n, _ node, _ GPU) Action {
	if n.isNull() {
		return PerformanceState{}
	}
	return PerformanceState(nvml.Some(n.integer(0, 15)))
}

func decodePCIe(n node, g GPU) PCIe {
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

func decodePCIeErrors(n, _ node, _ GPU) Action {
	n.keys("recoveries", "correctable", "nonFatal", "fatal", "unsupportedRequests")
	return PCIeErrors{
		Recoveries: n.at("recoveries").count(), Correctable: n.at("correctable").count(), NonFatal: n.at("nonFatal").count(),
		Fatal: n.at("fatal").count(), UnsupportedRequests: n.at("unsupportedRequests").count(),
	}
}

func decodeNVLink(n, _ node, g GPU) Action {
	if g.Model.NVLink.Count == 0 {
		n.fail("expected no nvlink: " + g.Name + " has none")
		return NVLink{}
	}
	n.keys("link", "state", "recoveries", "replays", "crcErrors", "crcDataErrors",
		"receiveErrors", "integrityErrors", "transmitDiscards", "recoveriesFailed", "effectiveErrors", "symbolErrors")
	return NVLink{
		Number: n.at("link").required("the number of a link").integer(0, g.Model.NVLink.Count-1),
		State: n.at("state").word(
			string(nvml.NVLinkActive), string(nvml.NVLinkInactive), string(nvml.NVLinkSleep), string(nvml.NVLinkTrafficDisabled)),
		Recoveries: n.at("recoveries").count(),
		Replays:    n.at("replays").count(), CRCErrors: n.at("crcErrors").count(), CRCDataErrors: n.at("crcDataErrors").count(),
		ReceiveErrors: n.at("receiveErrors").count(), IntegrityErrors: n.at("integrityErrors").count(),
		TransmitDiscards: n.at("transmitDiscards").count(), RecoveriesFailed: n.at("recoveriesFailed").count(),
		EffectiveErrors: n.at("effectiveErrors").count(), SymbolErrors: n.at("symbolErrors").count(),
	}
}

func decodeFabric(n, _ node, g GPU) Action {
	if !g.Model.Fabric {
		n.fail("expected no fabric: " + g.Name + " has none")
		return Fabric{}
	}
	n.keys("state", "status", "clique", "unhealthy", "summary")
	f := Fabric{
		State:   n.at("state").required("not-started, in-progress or completed").word("not-started", "in-progress", "completed"),
		Status:  decodeFailure(n.at("status")),
		Clique:  n.at("clique").integer(0, math.MaxInt32),
		Summary: n.at("summary").word("healthy", "unhealthy", "limited-capacity"),
	}
	const firstConfiguration, lastConfiguration = 4, 10
	var names []string
	for _, condition := range fabricConditions() {
		names = append(names, string(condition))
	}
	configuration := 0
	for _, item := range n.at("unhealthy").list() {
		name := item.word(names...)
		if i := slices.Index(names, name); i >= firstConfiguration && i <= lastConfiguration {
			if configuration++; configuration > 1 {
				item.expected("at most one of %s", list(names[firstConfiguration:lastConfiguration+1]))
			}
		}
		f.Unhealthy = append(f.Unhealthy, name)
	}
	return f
}

func decodeECCMode(n, _ node, _ GPU) Action {
	n.keys("current", "pending")
	return ECCMode{
		Current: n.at("current").required("true or false").boolean(),
		Pending: n.at("pending").required("true or false").boolean(),
	}
}

func decodeSRAM(n, _ node, _ GPU) Action {
	n.keys("thresholdExceeded", "uniqueUncorrected")
	return SRAM{ThresholdExceeded: n.at("thresholdExceeded").boolean(), UniqueUncorrected: n.at("uniqueUncorrected").count()}
}

func decodeRowBanks(n, _ node, _ GPU) Action {
	n.keys("max", "high", "partial", "low", "none")
	return RowBanks{
		Max: n.at("max").count(), High: n.at("high").count(), Partial: n.at("partial").count(),
		Low: n.at("low").count(), None: n.at("none").count(),
	}
}

func decodeMIGPending(n, _ node, g GPU) Action {
	if !g.MIG.OK {
		n.fail("expected no migPending: " + g.Name + " has no MIG")
	}
	return MIGPending(n.boolean())
}

func decodeRetiredPages(n, _ node, _ GPU) Action {
	n.keys("corrected", "uncorrected", "pending")
	return RetiredPages{
		Corrected:   n.at("corrected").count(),
		Uncorrected: n.at("uncorrected").count(),
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
