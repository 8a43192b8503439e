package fake

import (
	"math"
	"slices"
	"time"

	"gpuvet.dev/nvml"
)

// health is what the GPU says of itself, as far as the newest driver tells it.
func (g *gpu) health(now time.Time) nvml.Health {
	g.meter(now)
	h := nvml.Health{
		Time:                      now,
		Recovery:                  nvml.Some(g.recovery),
		ResetRequired:             nvml.Some(g.recovery == nvml.RecoverGPUReset),
		DrainAndResetRequired:     nvml.Some(g.recovery == nvml.RecoverDrainAndReset),
		ECCMode:                   nvml.Some(g.detail.ECCMode),
		RowsRemappedCorrectable:   nvml.Some(g.rows.Correctable),
		RowsRemappedUncorrectable: nvml.Some(g.rows.Uncorrectable),
		RowRemapPending:           nvml.Some(g.remapPending),
		RowRemapFailed:            nvml.Some(g.remapFailed),
		RowBanks:                  g.rowBanks(),
		PerformanceState:          g.detail.PerformanceState,
		ClockReasons:              nvml.Some(g.clockReasons(now)),
		ClockTimes:                g.clockTimes(),
		Thermal:                   g.thermal(now),
		PCIe:                      g.pcie(now),
		NVLinks:                   g.nvlinks(),
		Fabric:                    g.detail.Fabric.health(),
		Persistence:               nvml.Some(g.detail.Persistence),
	}
	if g.detail.ECCMode.Current {
		h.ECC = g.counters()
		h.SRAMThresholdExceeded = nvml.Some(g.detail.SRAM.ThresholdExceeded)
		if g.Architecture == "Blackwell" {
			h.SRAMUniqueUncorrected = nvml.Some(g.detail.SRAM.UniqueUncorrected)
		}
	}
	if pages := g.detail.Retired; pages.OK {
		h.PagesRetiredSingleBit, h.PagesRetiredDoubleBit = nvml.Some(pages.Value.Corrected), nvml.Some(pages.Value.Uncorrected)
		h.PageRetirementPending = nvml.Some(pages.Value.Pending)
	}
	if g.MIG.OK {
		h.MIGMode = nvml.Some(nvml.Mode{Current: g.MIG.Value, Pending: g.detail.MIGPending})
	}
	return h
}

func (g *gpu) counters() (all []nvml.ECCCount) {
	for _, location := range []string{"dram", "sram"} {
		for _, uncorrected := range []bool{false, true} {
			for _, aggregate := range []bool{false, true} {
				all = append(all, nvml.ECCCount{
					Uncorrected: uncorrected, Aggregate: aggregate, Location: location,
					Count: g.ecc[counter{uncorrected, aggregate, location}],
				})
			}
		}
	}
	return all
}

// rowBanks has each remapped row in another bank, where nothing is scripted. It
// cannot be told of a GPU with MIG devices.
func (g *gpu) rowBanks() nvml.Maybe[nvml.RowBanks] {
	switch {
	case len(g.Instances) > 0:
		return nvml.Maybe[nvml.RowBanks]{}
	case g.detail.RowBanks.OK:
		return g.detail.RowBanks
	}
	banks := nvml.RowBanks{Max: uint64(g.model.RowBanks)}
	if g.remapFailed {
		banks.None = 1
	}
	banks.High = min(g.rows.Correctable+g.rows.Uncorrectable, banks.Max-banks.None)
	banks.Max -= banks.High + banks.None
	return nvml.Some(banks)
}

// clockReasons are in the order of the bits of [ThrottleReasons].
func clockReasons() []nvml.ClockReason {
	return []nvml.ClockReason{
		nvml.ClockIdle, nvml.ClockApplications, nvml.ClockPowerCap, nvml.ClockHWSlowdown, nvml.ClockSyncBoost, nvml.ClockSWThermal,
		nvml.ClockHWThermal, nvml.ClockHWPowerBrake, nvml.ClockDisplay, nvml.ClockBoardLimit, nvml.ClockReliability,
	}
}

func (r ThrottleReasons) list() []nvml.ClockReason {
	reasons := []nvml.ClockReason{}
	for bit, reason := range clockReasons() {
		if r&(1<<bit) != 0 {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

func (g *gpu) clockReasons(now time.Time) []nvml.ClockReason {
	work := g.levels[Utilization]
	if g.detail.Throttle == 0 && work.present && work.at(now) == 0 && !g.MIG.Value {
		return []nvml.ClockReason{nvml.ClockIdle}
	}
	return g.detail.Throttle.list()
}

// clockTimes are for those reasons whose time NVML counts.
func (g *gpu) clockTimes() map[nvml.ClockReason]time.Duration {
	times := map[nvml.ClockReason]time.Duration{
		nvml.ClockThermal: g.held[nvml.ClockSWThermal] + g.held[nvml.ClockHWThermal],
	}
	for _, reason := range []nvml.ClockReason{
		nvml.ClockPowerCap, nvml.ClockSyncBoost, nvml.ClockBoardLimit, nvml.ClockReliability,
		nvml.ClockSWThermal, nvml.ClockHWThermal, nvml.ClockHWPowerBrake,
	} {
		times[reason] = g.held[reason]
	}
	return times
}

// thermal tells margins of limits since Ada.
func (g *gpu) thermal(now time.Time) (t nvml.Thermal) {
	limits := g.model.Temperatures
	known := func(limit float64) nvml.Maybe[float64] { return nvml.Maybe[float64]{Value: limit, OK: limit != 0} }
	t.Slowdown, t.Shutdown = known(limits.Slowdown), known(limits.Shutdown)
	if limits.Max == 0 {
		return t
	}
	if core := g.levels[Temperature]; core.present {
		t.Margin = nvml.Some(limits.Max - math.Round(core.at(now)))
	}
	if slices.Contains([]string{"Ada", "Hopper", "Blackwell"}, g.Architecture) {
		margin := func(limit nvml.Maybe[float64]) nvml.Maybe[float64] {
			if limit.OK {
				limit.Value = limits.Max - limit.Value
			}
			return limit
		}
		t.SlowdownMargin, t.ShutdownMargin = margin(t.Slowdown), margin(t.Shutdown)
	}
	return t
}

func (g *gpu) pcie(now time.Time) nvml.PCIe {
	d := &g.detail
	replays := g.levels[PCIeReplays]
	return nvml.PCIe{
		Generation: nvml.Some(d.PCIe.Generation), Width: nvml.Some(d.PCIe.Width),
		GenerationMax: nvml.Some(d.PCIeMax.Generation), WidthMax: nvml.Some(d.PCIeMax.Width),
		GenerationMaxGPU:    nvml.Some(g.model.PCIe.Generation),
		Replays:             whole(nvml.Maybe[float64]{Value: replays.at(now), OK: replays.present}),
		Recoveries:          nvml.Some(d.PCIeErrors.Recoveries),
		CorrectableErrors:   nvml.Some(d.PCIeErrors.Correctable),
		NonFatalErrors:      nvml.Some(d.PCIeErrors.NonFatal),
		FatalErrors:         nvml.Some(d.PCIeErrors.Fatal),
		UnsupportedRequests: nvml.Some(d.PCIeErrors.UnsupportedRequests),
	}
}

// nvlinks tells the counters that there are of each generation of link.
func (g *gpu) nvlinks() (all []nvml.NVLink) {
	const five, numbered = 7, 12 // NVML_NVLINK_VERSION_5_0; links with fields of their own
	for i, from := range g.detail.NVLinks {
		link := nvml.NVLink{Number: i, State: nvml.NVLinkState(from.State), Remote: "switch"}
		if g.model.NVLink.Version < five {
			link.Replays, link.Recoveries = nvml.Some(from.Replays), nvml.Some(from.Recoveries)
			link.CRCFlitErrors = nvml.Some(from.CRCErrors)
			if i < numbered {
				link.CRCDataErrors = nvml.Some(from.CRCDataErrors)
			}
		} else {
			link.ReceiveErrors, link.IntegrityErrors = nvml.Some(from.ReceiveErrors), nvml.Some(from.IntegrityErrors)
			link.TransmitDiscards = nvml.Some(from.TransmitDiscards)
			link.RecoveriesGood, link.RecoveriesFailed = nvml.Some(from.Recoveries), nvml.Some(from.RecoveriesFailed)
			link.EffectiveErrors, link.SymbolErrors = nvml.Some(from.EffectiveErrors), nvml.Some(from.SymbolErrors)
		}
		all = append(all, link)
	}
	return all
}

func (f Fabric) health() nvml.Maybe[nvml.Fabric] {
	if f.State == "" {
		return nvml.Maybe[nvml.Fabric]{}
	}
	h := nvml.Fabric{State: nvml.FabricState(f.State), Status: int(f.Status.Code()), Clique: uint32(f.Clique), Health: f.Summary}
	conditions := []nvml.FabricCondition{}
	for _, condition := range fabricConditions() {
		if slices.Contains(f.Unhealthy, string(condition)) {
			conditions = append(conditions, condition)
		}
	}
	h.Conditions = nvml.Some(conditions)
	switch {
	case h.Health != "":
	case len(conditions) > 0:
		h.Health = "unhealthy"
	default:
		h.Health = "healthy"
	}
	return nvml.Some(h)
}

// fabricConditions are in the order of NVML's health mask. Of those from the
// fifth to the eleventh one at most can be so at a time.
func fabricConditions() []nvml.FabricCondition {
	return []nvml.FabricCondition{
		nvml.FabricDegradedBandwidth, nvml.FabricRouteRecovery, nvml.FabricRouteUnhealthy, nvml.FabricAccessTimeout,
		nvml.FabricWrongSystem, nvml.FabricWrongChassis, nvml.FabricNoPartition, nvml.FabricTooFewLinks,
		nvml.FabricWrongFirmware, nvml.FabricWrongLocation, nvml.FabricWrongGPUState,
		nvml.FabricUnassigned, nvml.FabricManagerDisconnected,
	}
}
