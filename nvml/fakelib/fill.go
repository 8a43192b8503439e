package fakelib

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

func fillHeader(h *header, s fake.State) {
	h.Magic, h.Layout = pageMagic, pageLayout
	h.Hang = uint32(s.Hanging)
	h.InitFailure = s.InitFail.Code()
	h.GPUs = uint32(len(s.GPUs))
	h.CUDA = cuda(s.Driver.CUDA)
	h.Sentinels = flag[uint32](s.Driver.Sentinels)
	for i, group := range fake.CallGroups() {
		h.LatencyUS[i] = uint32(s.Latency[group] / time.Microsecond)
	}
	text(h.Driver[:], s.Driver.Version)
	text(h.Library[:], s.Driver.Library)
	h.Exclusions = uint32(min(len(s.Excluded), maxExcluded))
	for i := range h.Exclusions {
		text(h.Excluded[i].PCI[:], s.Excluded[i].PCI)
		text(h.Excluded[i].UUID[:], s.Excluded[i].UUID)
	}
}

// cuda gives 12080 for "12.8".
func cuda(version string) uint32 {
	major, minor, _ := strings.Cut(version, ".")
	a, _ := strconv.Atoi(major) // the scenario was decoded strictly
	b, _ := strconv.Atoi(minor)
	return uint32(1000*a + 10*b)
}

func fillGPU(p *gpu, g *fake.GPUState, s fake.State) {
	p.Present, p.Lost, p.Unbound = flag[uint32](!g.Missing && !g.Unbound), flag[uint32](g.Lost), flag[uint32](g.Unbound)
	p.Hang, p.Failure = uint32(g.Hanging), g.Failure.Code()
	fillIdentity(p, g)
	fillReadings(p, g)
	fillHealth(p, g)
	p.EventTypes = eventTypes(s.Driver.Version, g)
	fillLinks(p, g)
	fillMIG(p, g)
	fillProcesses(p, g)
	fillFields(p, g)
}

func architecture(name string) uint32 {
	numbers := map[string]uint32{
		"Kepler": 2, "Maxwell": 3, "Pascal": 4, "Volta": 5, "Turing": 6, "Ampere": 7, "Ada": 8, "Hopper": 9, "Blackwell": 10, "Rubin": 13,
	}
	if n, ok := numbers[name]; ok {
		return n
	}
	return math.MaxUint32 // NVML_DEVICE_ARCH_UNKNOWN
}

// brand is an NVML_BRAND_*.
func brand(name string) uint32 {
	return map[string]uint32{
		"Quadro": 1, "Tesla": 2, "NVS": 3, "Grid": 4, "GeForce": 5, "Titan": 6, "NvidiaVApps": 7, "NvidiaVPC": 8, "NvidiaVCS": 9,
		"NvidiaVWS": 10, "NvidiaCloudGaming": 11, "QuadroRTX": 12, "NvidiaRTX": 13, "Nvidia": 14, "GeForceRTX": 15, "TitanRTX": 16,
	}[name] // else 0, unknown
}

// addressing is an NVML_DEVICE_ADDRESSING_MODE_*.
func addressing(mode string) uint64 {
	if n, ok := map[string]uint64{"None": 0, "HMM": 1, "ATS": 2}[mode]; ok {
		return n
	}
	return absent
}

func fillIdentity(p *gpu, g *fake.GPUState) {
	text(p.PCI[:], g.PCI)
	text(p.UUID[:], g.UUID)
	text(p.Name[:], g.Name)
	text(p.Serial[:], g.Serial)
	text(p.VBIOS[:], g.VBIOS)
	text(p.Part[:], g.Model.PartNumber)
	p.Minor = absent
	if g.Minor >= 0 {
		p.Minor = uint64(g.Minor)
		p.Module = uint32(g.Minor)%8 + 1
	}
	p.PCIDevice, p.PCISubsystem = g.Model.PCIDevice, g.Model.PCISubsystem
	p.Architecture, p.Brand, p.Addressing = architecture(g.Architecture), brand(g.Brand), addressing(g.AddressingMode)
	p.CapabilityMajor, p.CapabilityMinor = uint32(g.Model.Capability[0]), uint32(g.Model.Capability[1])
	p.Cores, p.BusWidth = uint32(g.Model.Cores), uint32(g.Model.BusWidth)
	p.HasGPM = flag[uint32](g.Model.GPM)
}

func fillReadings(p *gpu, g *fake.GPUState) {
	const milli, percent, mega = 1000, 100, 1e-6
	r, m := &g.Readings, &g.Model
	p.Temperature, p.MemoryTemperature = number(r.Temperature, 1), number(r.MemoryTemperature, 1)
	p.TemperatureMax, p.TemperatureSlowdown = limit(m.Temperatures.Max, 1), limit(m.Temperatures.Slowdown, 1)
	p.TemperatureShutdown, p.TemperatureMemoryMax = limit(m.Temperatures.Shutdown, 1), limit(m.Temperatures.Memory, 1)
	p.PowerMW, p.PowerLimitMW = number(r.Power, milli), number(r.PowerLimit, milli)
	p.PowerMinMW, p.PowerMaxMW, p.PowerDefaultMW = limit(m.Power.Min, milli), limit(m.Power.Max, milli), limit(m.Power.Default, milli)
	p.EnergyMJ = number(r.Energy, milli)
	p.MemoryTotal, p.MemoryUsed, p.MemoryReserved = count(r.MemoryTotal), count(r.MemoryUsed), count(r.MemoryReserved)
	p.BAR1Total = m.BAR1
	p.Utilization, p.MemoryUtilization = number(r.Utilization, percent), number(r.MemoryUtilization, percent)
	for i, domain := range []string{"graphics", "sm", "memory", "video"} {
		p.ClockMHz[i], p.MaxClockMHz[i] = absent, absent
		if hz, ok := r.Clocks[domain]; ok {
			p.ClockMHz[i] = uint64(math.Round(hz * mega))
		}
		if hz, ok := r.MaxClocks[domain]; ok {
			p.MaxClockMHz[i] = uint64(math.Round(hz * mega))
		}
	}
	p.PCIeReplays = count(r.PCIeReplays)
}

func fillHealth(p *gpu, g *fake.GPUState) {
	h := &g.Health
	p.ECCEnabled, p.ECCPending = absent, absent
	if h.ECCMode.OK {
		p.ECCEnabled, p.ECCPending = flag[uint64](h.ECCMode.Value.Current), flag[uint64](h.ECCMode.Value.Pending)
	}
	for _, c := range h.ECC {
		counters := map[string]map[bool]*[2]uint64{
			"dram": {false: &p.ECCCorrected, true: &p.ECCUncorrected},
			"sram": {false: &p.ECCSRAMCorrected, true: &p.ECCSRAMUncorrected},
		}[c.Location][c.Uncorrected]
		if counters != nil {
			counters[flag[int](c.Aggregate)] = c.Count
		}
	}
	p.RowsCorrected, p.RowsUncorrected = count(h.RowsRemappedCorrectable), count(h.RowsRemappedUncorrectable)
	p.RowsPending, p.RowsFailed = yes(h.RowRemapPending), yes(h.RowRemapFailed)
	banks := h.RowBanks.Value
	p.RowBanks = [5]uint64{banks.Max, banks.High, banks.Partial, banks.Low, banks.None}
	p.SRAMExceeded, p.SRAMUnique = flag[uint64](h.SRAMThresholdExceeded.Value), count(h.SRAMUniqueUncorrected)
	p.PagesCorrected, p.PagesUncorrected = count(h.PagesRetiredSingleBit), count(h.PagesRetiredDoubleBit)
	p.PagesPending = yes(h.PageRetirementPending)
	p.Persistence = flag[uint64](h.Persistence.Value)
	p.Recovery = absent
	if h.Recovery.OK {
		p.Recovery = uint64(h.Recovery.Value)
	}
	fillClocks(p, h)
	fillPCIe(p, &h.PCIe)
}

func fillClocks(p *gpu, h *nvml.Health) {
	p.PerformanceState = absent
	if h.PerformanceState.OK {
		p.PerformanceState = uint64(h.PerformanceState.Value)
	}
	p.ClockReasons = 0
	for bit, reason := range []nvml.ClockReason{
		nvml.ClockIdle, nvml.ClockApplications, nvml.ClockPowerCap, nvml.ClockHWSlowdown, nvml.ClockSyncBoost, nvml.ClockSWThermal,
		nvml.ClockHWThermal, nvml.ClockHWPowerBrake, nvml.ClockDisplay, nvml.ClockBoardLimit, nvml.ClockReliability,
	} {
		if slices.Contains(h.ClockReasons.Value, reason) {
			p.ClockReasons |= 1 << bit
		}
	}
	for i, reason := range [violationCount]nvml.ClockReason{
		violationPower: nvml.ClockPowerCap, violationSyncBoost: nvml.ClockSyncBoost,
		violationSWThermal: nvml.ClockSWThermal, violationHWThermal: nvml.ClockHWThermal, violationPowerBrake: nvml.ClockHWPowerBrake,
		violationBoardLimit: nvml.ClockBoardLimit, violationReliability: nvml.ClockReliability,
	} {
		p.ViolationNS[i] = uint64(h.ClockTimes[reason])
	}
}

func fillPCIe(p *gpu, link *nvml.PCIe) {
	size := func(v nvml.Maybe[int]) uint64 { return count(nvml.Maybe[uint64]{Value: uint64(v.Value), OK: v.OK}) }
	p.PCIeGeneration, p.PCIeWidth = size(link.Generation), size(link.Width)
	p.PCIeMaxGeneration, p.PCIeMaxWidth = size(link.GenerationMax), size(link.WidthMax)
	p.PCIeMaxGenerationGPU = size(link.GenerationMaxGPU)
	p.PCIeRecoveries, p.PCIeCorrectable = count(link.Recoveries), count(link.CorrectableErrors)
	p.PCIeNonFatal, p.PCIeFatal = count(link.NonFatalErrors), count(link.FatalErrors)
	p.PCIeUnsupportedRequests = count(link.UnsupportedRequests)
}

func fillLinks(p *gpu, g *fake.GPUState) {
	p.Links = uint32(min(len(g.NVLinks), maxLinks))
	p.LinkVersion, p.LinkMBps = uint32(g.Model.NVLink.Version), uint64(g.Model.NVLink.Speed)
	states := map[string]uint64{"inactive": 0, "active": 1, "sleep": 2, "traffic-disabled": 3}
	for i := range p.Links {
		from, to := &g.NVLinks[i], &p.Link[i]
		to.State = states[from.State]
		to.Replays, to.Recoveries, to.CRCErrors, to.CRCDataErrors = from.Replays, from.Recoveries, from.CRCErrors, from.CRCDataErrors
		to.ReceiveErrors, to.IntegrityErrors = from.ReceiveErrors, from.IntegrityErrors
		to.TransmitDiscards, to.RecoveriesFailed = from.TransmitDiscards, from.RecoveriesFailed
		to.EffectiveErrors, to.SymbolErrors = from.EffectiveErrors, from.SymbolErrors
	}
	p.Fabric = fabricOf(g.Health.Fabric)
}

// fabricOf sets the health mask. Each of the first four faults has two bits, 1
// that it is there, 2 that it is not; the others are told only if they are there.
func fabricOf(f nvml.Maybe[nvml.Fabric]) fabric {
	if !f.OK {
		return fabric{}
	}
	states := map[nvml.FabricState]uint32{nvml.FabricNotStarted: 1, nvml.FabricInProgress: 2, nvml.FabricCompleted: 3}
	summaries := map[string]uint32{"healthy": 1, "unhealthy": 2, "limited-capacity": 3}
	p := fabric{
		State: states[f.Value.State], Status: uint32(f.Value.Status), Clique: f.Value.Clique, Summary: summaries[f.Value.Health],
	}
	conditions := f.Value.Conditions.Value
	for i, fault := range []nvml.FabricCondition{
		nvml.FabricDegradedBandwidth, nvml.FabricRouteRecovery, nvml.FabricRouteUnhealthy, nvml.FabricAccessTimeout,
	} {
		bits := uint32(2)
		if slices.Contains(conditions, fault) {
			bits = 1
		}
		p.Mask |= bits << (2 * i)
	}
	for i, fault := range []nvml.FabricCondition{
		nvml.FabricWrongSystem, nvml.FabricWrongChassis, nvml.FabricNoPartition, nvml.FabricTooFewLinks,
		nvml.FabricWrongFirmware, nvml.FabricWrongLocation, nvml.FabricWrongGPUState,
	} {
		if slices.Contains(conditions, fault) {
			p.Mask |= uint32(i+2) << 8
		}
	}
	if slices.Contains(conditions, nvml.FabricUnassigned) {
		p.Mask |= 2 << 12
	}
	if slices.Contains(conditions, nvml.FabricManagerDisconnected) {
		p.Mask |= 2 << 14
	}
	return p
}

func fillMIG(p *gpu, g *fake.GPUState) {
	p.HasMIG, p.MIGMode, p.MIGNext = flag[uint32](g.MIG.OK), flag[uint32](g.MIG.Value), flag[uint32](g.MIGPending)
	p.Profiles = uint32(min(len(g.Model.MIG), maxProfiles))
	for i := range p.Profiles {
		p.Profile[i] = profileOf(&g.Model.MIG[i])
	}
	p.Instances = uint32(min(len(g.Instances), maxInstances))
	p.Instance = [maxInstances]instance{}
	taken := map[int]uint32{} // compute slices by GPU instance
	for i := range p.Instances {
		p.Instance[i] = instanceOf(g, &g.Instances[i])
		p.Instance[i].CIStart = taken[g.Instances[i].GPUInstance]
		taken[g.Instances[i].GPUInstance] += p.Instance[i].CISlices
	}
}

func profileOf(m *fake.MIGProfile) profile {
	const mebibyte = 1 << 20
	p := profile{
		Index: uint32(m.Index), ID: uint32(m.ID), Slices: uint32(m.Slices), Size: uint32(m.Size), Count: uint32(m.Count),
		Multiprocessors: uint32(m.Multiprocessors), MemoryMB: m.Memory / mebibyte,
		CopyEngines: uint32(m.Engines.Copy), Decoders: uint32(m.Engines.Decode), Encoders: uint32(m.Engines.Encode),
		JPEG: uint32(m.Engines.JPEG), OFA: uint32(m.Engines.OFA),
	}
	for _, start := range m.Starts {
		p.Starts |= 1 << start
	}
	text(p.Name[:], m.Name)
	return p
}

func instanceOf(g *fake.GPUState, i *nvml.Instance) instance {
	p := instance{
		Present: 1, GI: uint32(i.GPUInstance), CI: uint32(i.ComputeInstance),
		Start: uint32(i.Start.Value), Size: uint32(i.Size.Value),
	}
	compute, whole, parted := strings.Cut(i.Profile, "c.")
	if !parted {
		whole = i.Profile
	}
	if n := slices.IndexFunc(g.Model.MIG, func(m fake.MIGProfile) bool { return m.Name == whole }); n >= 0 {
		m := &g.Model.MIG[n]
		p.Profile, p.CISlices = uint32(n), uint32(m.Slices)
		if slices, err := strconv.Atoi(compute); parted && err == nil {
			p.CISlices = uint32(slices)
		}
		p.Multiprocessors = uint32(m.Multiprocessors) * p.CISlices / uint32(m.Slices)
	}
	for _, process := range g.Processes {
		if process.GPUInstance != nil && *process.GPUInstance == i.GPUInstance {
			p.MemoryUsed += process.Memory.Value
		}
	}
	text(p.Name[:], i.Profile)
	text(p.UUID[:], i.UUID)
	return p
}

func fillProcesses(p *gpu, g *fake.GPUState) {
	const percent = 100
	kinds := map[string]uint32{"": 0, "compute": 0, "graphics": 1, "mps": 2}
	p.Processes = uint32(min(len(g.Processes), maxProcesses))
	for i := range p.Processes {
		from := &g.Processes[i]
		to := process{
			PID: uint32(from.PID), Kind: kinds[from.Kind], GI: instanceID(from.GPUInstance), CI: instanceID(from.ComputeInstance),
			Memory: count(from.Memory), SM: uint32(percent * from.Utilization), MemoryUtilization: uint32(percent * from.MemoryUtilization),
		}
		text(to.Name[:], from.Name)
		p.Process[i] = to
	}
}

func fillFields(p *gpu, g *fake.GPUState) {
	types := map[string]uint32{"double": 0, "uint": 1, "ulong": 2, "ulonglong": 3, "": 3, "longlong": 4, "int": 5, "ushort": 6}
	p.Fields = uint32(min(len(g.Fields), maxFields))
	for i := range p.Fields {
		from := &g.Fields[i]
		p.Field[i] = field{
			ID: uint32(from.ID), Scope: uint32(from.Scope), Type: types[from.Type], Failure: from.Failure.Code(), Bits: from.Bits,
		}
	}
}

func text(to []byte, s string) {
	clear(to)
	copy(to[:len(to)-1], s)
}

func flag[T int | uint32 | uint64](b bool) T {
	if b {
		return 1
	}
	return 0
}

func yes(v nvml.Maybe[bool]) uint64 {
	if !v.OK {
		return absent
	}
	return flag[uint64](v.Value)
}

func count(v nvml.Maybe[uint64]) uint64 {
	if !v.OK {
		return absent
	}
	return v.Value
}

// number is a value in a smaller unit, rounded.
func number(v nvml.Maybe[float64], per float64) uint64 {
	if !v.OK {
		return absent
	}
	return uint64(int64(math.Round(v.Value * per)))
}

func limit(v, per float64) uint64 {
	if v == 0 {
		return absent
	}
	return uint64(v * per)
}

func instanceID(id *int) uint32 {
	if id == nil {
		return noInstance
	}
	return uint32(*id)
}
